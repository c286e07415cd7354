"""Rollouts that run ahead of training, and questions that are dropped: what is filed where, and how such a run ends.

Real parts throughout: OpenRLHF's asynchronous trainer, in which samples are generated and trained in two processes, and
its dynamic filtering, switched on by the flags of an algorithm of another package.
"""

import json
import os
import signal
from pathlib import Path

import pytest

from r1searcher.common.files import read_rows
from r1searcher.engine.openrlhf.checkpoints import checkpoint_step
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import StopDecision, read_ending, trajectory_rows
from tests import extension
from tests.engine.test_training import ids, until_step, wait_for
from tests.engine.toy import World
from tests.processes import with_variable

pytestmark = pytest.mark.training
pytest.importorskip("openrlhf")
pytest.importorskip("vllm")

AHEAD = 2
"""Steps that rollouts may run ahead of training."""

SOURCE = """
from r1searcher.engine.openrlhf.algorithms import Algorithm

FILTERED = Algorithm(
    estimator="group_norm",
    description="",
    flags={"algo.dynamic_filtering_enable": True, "algo.dynamic_filtering_range": (0.01, 0.99)},
    needs_group=True,
)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = extension.install(tmp_path, {"mine": SOURCE}, {"r1searcher.algorithms": {"filtered": "mine:FILTERED"}})
    monkeypatch.setenv("PYTHONPATH", extension.environment(where)["PYTHONPATH"])


def check_places(run: RunFolder) -> set[int]:
    """Every episode is in the folder of its question's row; returns the steps that have episodes."""
    labels = [json.loads(row["label"]) for row in read_rows(run.questions)]
    of_step: dict[int, set[str]] = {}
    for label in labels:
        of_step.setdefault(label["step"], set()).add(label["id"])
    for step, folder in run.recorded_steps():
        rows = list(trajectory_rows(folder))
        assert {row["step"] for row in rows} == {step}
        assert {row["id"] for row in rows} <= of_step[step]
    return {step for step, _ in run.recorded_steps()}


@pytest.mark.long
def test_rollouts_run_ahead_within_the_bound_through_a_kill_and_an_early_end(world: World) -> None:
    last = 8
    ending = ("--set", "stop.retrieval=0", "--set", f"stop.patience={last}")
    words = world.stage_words("ahead", "--steps", "30", "--set", f"engine.async_steps={AHEAD}", *ending)
    run = world.folder_of("ahead")
    child = until_step(3, run, world.command(*words))
    launch = json.loads((run.path / "launch.json").read_text("utf-8"))["launch"]
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    wait_for(lambda: not with_variable(launch))  # until then it may save a checkpoint
    resumed = checkpoint_step(run)
    assert resumed in range(2, last)
    assert max(step for step, _ in run.recorded_steps()) > resumed, "a kill comes while rollouts are ahead"

    world.run(*words)
    rows = list(read_rows(run.metrics))
    assert [row["step"] for row in rows] == list(range(1, last + 1))
    decided = read_ending(run)
    assert isinstance(decided, StopDecision)
    assert (decided.reason, decided.step) == ("thresholds reached", last)
    assert checkpoint_step(run) == last, "the step that decides is saved"
    assert (run.model / "model.safetensors").exists()
    recorded = check_places(run)
    assert set(range(1, last + 1)) <= recorded <= set(range(1, last + 1 + AHEAD)), "and what was sampled ahead of it"
    order = [json.loads(row["label"])["id"] for row in read_rows(run.questions)]
    for step in range(1, last + 1):  # no question was skipped, and none is there twice
        assert ids(run, step) == sorted(order[8 * (step - 1) : 8 * step])

    assert all(row["staleness_max"] <= AHEAD for row in rows)
    assert [rows[step]["staleness_max"] for step in (0, resumed)] == [0, 0], "first steps sample from their own weights"
    assert max(row["staleness"] for row in rows) >= 1, "later ones run ahead"
    for row in rows:  # what the engine reported is what the trajectories record
        ages = [row["step"] - 1 - episode["weights_step"] for episode in trajectory_rows(run.trajectories(row["step"]))]
        assert (sum(ages) / len(ages), max(ages)) == (row["staleness"], row["staleness_max"])
    assert all(abs(row["sync_kl"]) < 1e-3 for row in rows), "the weights that were sent last are those that vLLM has"
    assert max(abs(row["vllm_kl"]) for row in rows) > max(abs(row["sync_kl"]) for row in rows)

    world.run("report", str(run.path))
    assert set(json.loads((run.path / "report.json").read_text("utf-8"))["steps"]) == {"step 1", f"step {last}"}


@pytest.mark.long
def test_episodes_continue_with_newer_weights(world: World) -> None:
    words = ("--set", f"engine.async_steps={AHEAD}", "--set", "engine.partial_rollouts=true")
    run = world.stage1("partial", "--steps", "6", *words)
    rows = list(read_rows(run.metrics))
    assert [row["step"] for row in rows] == list(range(1, 7))
    assert all(row["staleness_max"] <= AHEAD for row in rows), "of the weights that an episode starts with"
    assert all(abs(row["sync_kl"]) < 1e-3 for row in rows)
    assert check_places(run) == set(range(1, 7))


@pytest.mark.long
def test_filtering_drops_by_the_reward_and_files_by_the_label(world: World, package: None) -> None:
    run = world.stage1("filtered", "--steps", "6", "--set", "rl.algorithm=filtered")
    trained = list(read_rows(run.metrics))
    assert trained
    assert check_places(run) == set(range(1, 7)), "all questions are asked"
    groups: dict[tuple[int, str], list[float]] = {}
    for step, folder in run.recorded_steps():
        for row in trajectory_rows(folder):
            groups.setdefault((step, row["id"]), []).append(row["reward"])
    kept = sum(0.01 < sum(rewards) / len(rewards) < 0.99 for rewards in groups.values())
    assert sum(row["rollout/num_samples"] for row in trained) == 8 * kept
