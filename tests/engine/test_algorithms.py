"""Every algorithm on the toy world: the engine trains with it, and its rollouts come from the trained weights."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from r1searcher.common.files import read_rows
from r1searcher.engine.openrlhf.algorithms import ALGORITHMS
from r1searcher.engine.openrlhf.checkpoints import checkpoint_step
from r1searcher.runs.folder import RunFolder
from tests.engine.toy import World

pytestmark = pytest.mark.training
torch = pytest.importorskip("torch")
pytest.importorskip("openrlhf")
pytest.importorskip("vllm")


def stage(world: World, name: str, steps: int, *assignments: str) -> RunFolder:
    words = [word for assignment in assignments for word in ("--set", assignment)]
    return world.stage1(name, "--steps", str(steps), *words)


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def changed(before: dict[str, Any], after: dict[str, Any]) -> bool:
    assert before.keys() == after.keys()
    return any(not torch.equal(before[name].float(), after[name].float()) for name in before)


def critic_of(run: RunFolder, step: int) -> dict[str, Any]:
    file = run.checkpoints / "_critic" / f"global_step{step}" / "mp_rank_00_model_states.pt"
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=False)["module"]
    return state


PPO = ("rl.algorithm=ppo", "rl.critic_learning_rate=1e-3", "checkpoint.every=1")


def test_ppo_trains_the_policy_and_its_critic(world: World) -> None:
    run = stage(world, "ppo", 1, *PPO)
    start = weights(world.folder_of("sft").model)
    [row] = read_rows(run.metrics)
    assert row["critic_loss"] > 0
    assert abs(row["vllm_kl"]) < 1e-3
    assert changed(start, weights(run.model))
    critic = critic_of(run, 1)
    assert critic.pop("score.weight").shape == (1, 128)  # the toy model's hidden size
    assert changed({name: start[name] for name in critic}, critic), "the critic starts with the policy's weights"
    assert checkpoint_step(run) == 1


@pytest.mark.long
def test_ppo_resumes_from_a_step_of_which_both_models_are_saved(world: World) -> None:
    run = stage(world, "ppo-resumed", 2, *PPO)
    for file in (run.summary, run.ending):
        file.unlink(missing_ok=True)
    shutil.rmtree(run.model)
    (run.checkpoints / "_critic" / "latest").write_text(
        "global_step1"
    )  # killed before the critic's second was complete
    shutil.rmtree(run.checkpoints / "_critic" / "global_step2")
    assert checkpoint_step(run) == 1
    stage(world, "ppo-resumed", 2, *PPO)
    assert [row["step"] for row in read_rows(run.metrics)] == [1, 2]
    assert checkpoint_step(run) == 2
    assert changed(critic_of(run, 1), critic_of(run, 2))


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in ALGORITHMS.builtin if name != "ppo"])
def test_every_other_algorithm_trains(world: World, name: str) -> None:
    """With a reference model, and a temperature at which raw log-probabilities are not those of the samples."""
    run = stage(world, name, 2, f"rl.algorithm={name}", "rl.kl_coef=0.01", "episode.temperature=0.8")
    rows = list(read_rows(run.metrics))
    assert [row["step"] for row in rows] == [1, 2]
    assert all(abs(row["vllm_kl"]) < 1e-3 for row in rows)
    assert changed(weights(world.folder_of("sft").model), weights(run.model))
