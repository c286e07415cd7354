"""The whole engine on a model of 0.4 M parameters: warm-up, a stage that learns, a kill -9 and what comes after it.

Real parts throughout: the commands, Ray, vLLM, DeepSpeed, OpenRLHF, the index. Takes some minutes on two cores.
"""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from r1searcher.common.files import read_rows
from r1searcher.engine.launch import checkpoint_step
from r1searcher.runs.folder import RunFolder
from tests.engine.toy import World, make_world, one_thread

pytestmark = pytest.mark.training
pytest.importorskip("openrlhf")
pytest.importorskip("vllm")

SAMPLES = 64
"""Episodes a step."""


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    """A world whose model was warmed up to search now and then: its run is "warmup"."""
    made = make_world(tmp_path_factory.mktemp("world"))
    made.run("sft", str(made.settings), "--name", "warmup")
    return made


def test_the_engine_learns_to_search(world):
    start = str(world.folder_of("warmup").path)
    world.run("stage1", str(world.settings), "--from", start, "--name", "learns", "--steps", "9")
    run = world.folder_of("learns")
    rows = list(read_rows(run.metrics))
    assert [row["step"] for row in rows] == list(range(1, 10))
    rates = [row["retrieval"] for row in rows]
    # 64 episodes a step: the standard error of a difference of two such rates is below .09.
    assert rates[0] < 0.65, rates
    assert min(rates[-2:]) > rates[0] + 0.27, rates
    assert all(abs(row["vllm_kl"]) < 1e-3 for row in rows), "rollouts come from the trained weights"
    for step, row in enumerate(rows, start=1):
        episodes = list(read_rows(run.trajectories(step)))
        assert len(episodes) == SAMPLES
        assert sum(bool(e["searches"]) for e in episodes) / SAMPLES == pytest.approx(row["retrieval"])
    assert (run.model / "model.safetensors").exists()


def test_the_guard_stops_a_run_whose_rollouts_drift(world):
    """Rounding alone is the drift here, under a limit that is smaller still."""
    run = world.folder_of("guarded")
    words = ("stage1", str(world.settings), "--from", str(world.folder_of("warmup").path), "--name", "guarded")
    command = world.command(*words, "--set", "engine.vllm_kl_limit=1e-12", "--set", "checkpoint.every=1")
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=one_thread())
    said = " ".join(done.stderr.split())
    assert done.returncode == 1, said
    assert "the rollouts no longer come from the trained weights" in said
    assert "Traceback" not in said
    stopped = [row["step"] for row in read_rows(run.metrics)][-1]
    assert checkpoint_step(run) == stopped - 1, "the step that is not trusted leaves no checkpoint"
    assert not (run.path / "summary.json").exists()


def test_a_stage_killed_and_interrupted_in_the_middle_goes_on_with_the_data_in_order(world):
    # Enough steps that it is still at work when a machine at its fastest has done two more than were waited for.
    last = 12
    start = str(world.folder_of("warmup").path)
    words = ("stage2", str(world.settings), "--from", start, "--steps", str(last), "--name")
    world.run(*words, "whole")
    run = world.folder_of("killed")

    child = until_step(3, run, world.command(*words, "killed"))
    launch = json.loads((run.path / "launch.json").read_text())["launch"]
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert checkpoint_step(run) in range(2, last, 2)
    wait_for(lambda: not processes_with(launch), 60)  # nothing goes on training behind the user's back

    recorded = len(list(read_rows(run.metrics)))  # what stands behind the checkpoint is replaced
    child = until_step(recorded + 1, run, world.command(*words, "killed"))
    os.kill(child.pid, signal.SIGINT)
    assert child.wait(timeout=120) == 130
    assert not (run.path / "summary.json").exists(), "an interrupted stage is not a finished one"
    assert checkpoint_step(run) == len(list(read_rows(run.metrics))), "nothing that was trained is lost"

    world.run(*words, "killed")
    steps = range(1, last + 1)
    assert [row["step"] for row in read_rows(run.metrics)] == list(steps)
    assert [ids(run, step) for step in steps] == [ids(world.folder_of("whole"), step) for step in steps]
    assert len({id_ for step in steps for id_ in ids(run, step)}) == 8 * last, "no question twice in one pass"


def until_step(step: int, run: RunFolder, command: list[str]) -> "subprocess.Popen[bytes]":
    """The command at work, when it has finished that step."""
    child = subprocess.Popen(
        command, env=one_thread(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    wait_for(lambda: step in {row["step"] for row in read_rows(run.metrics)} or child.poll() is not None, 600)
    assert child.poll() is None, run.log.read_text()[-4000:]
    return child


def ids(run: RunFolder, step: int) -> list[str]:
    episodes = [episode["id"] for episode in read_rows(run.trajectories(step))]
    assert len(episodes) == SAMPLES
    return sorted(set(episodes))


def wait_for(condition, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not within {seconds:.0f} s"
        time.sleep(0.5)


def processes_with(launch: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and launch.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found
