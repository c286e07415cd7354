"""A run whose weights do not reach vLLM stops, whatever is trained and whenever the rollouts run.

The weight sync of the engine is replaced in every process of a run (`sitecustomize`), everything else is real.
"""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from r1searcher.common.files import read_rows
from r1searcher.engine.openrlhf.checkpoints import checkpoint_step
from tests import extension
from tests.engine.toy import HANG, World, one_thread

pytestmark = [pytest.mark.training, pytest.mark.long]
pytest.importorskip("openrlhf")
pytest.importorskip("vllm")

REPLACED = """
from r1searcher.engine import import_patches


def nothing(stock):
    return lambda self: None


def weights_of_the_first_sync(stock):
    first = {}

    def broadcast_to_vllm(self):
        weights = dict(self.actor.model.module.named_parameters())
        trained = {name: weight.data for name, weight in weights.items()}
        for name, weight in weights.items():
            weight.data = first.setdefault(name, weight.data.clone())
        stock(self)
        for name, weight in weights.items():
            weight.data = trained[name]

    return broadcast_to_vllm


def replace(module):
    '''A weight sync that does not send what was trained.'''
    module.ActorPPOTrainer.broadcast_to_vllm = SENDS(module.ActorPPOTrainer.broadcast_to_vllm)


patch = import_patches.Patch("openrlhf.trainer.ray.ppo_actor", ("ActorPPOTrainer.broadcast_to_vllm",), apply=replace)
import_patches.install([patch])
"""

DRIFT = "the rollouts no longer come from the trained weights"
ANY_DRIFT = "engine.vllm_kl_limit=1000"


@pytest.fixture
def replace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """What the weight sync sends instead, in every process that is started from now on."""

    def replace(sends: str) -> None:
        (tmp_path / "sitecustomize.py").write_text(REPLACED.replace("SENDS", sends))
        monkeypatch.setenv("PYTHONPATH", extension.environment(tmp_path)["PYTHONPATH"])

    return replace


@pytest.mark.parametrize(
    ("name", "sends", "settings", "said"),
    [
        ("weights", "nothing", (), DRIFT),
        ("adapters", "nothing", ("lora.rank=4", "rl.learning_rate=1e-2"), DRIFT),
        ("age", "nothing", (ANY_DRIFT,), "engine.async_steps = 0"),
        ("age-ahead", "nothing", (ANY_DRIFT, "engine.async_steps=2"), "engine.async_steps = 2"),
        ("weights-ahead", "weights_of_the_first_sync", ("engine.async_steps=1",), "sync_kl is"),
    ],
)
def test_a_run_whose_weights_do_not_reach_vllm_is_stopped(
    world: World, replace: Callable[[str], None], name: str, sends: str, settings: tuple[str, ...], said: str
) -> None:
    replace(sends)
    words = [word for assignment in (*settings, "checkpoint.every=1") for word in ("--set", assignment)]
    command = world.command(*world.stage_words(name, *words, "--steps", "10"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, env=one_thread())
    assert done.returncode == 1, done.stderr
    assert said in " ".join(done.stderr.split())
    run = world.folder_of(name)
    steps = [row["step"] for row in read_rows(run.metrics)]
    assert 2 <= steps[-1] < 10, "the first step samples from the weights that training starts with"
    assert checkpoint_step(run) == steps[-1] - 1, "the step that is not trusted leaves no checkpoint"
