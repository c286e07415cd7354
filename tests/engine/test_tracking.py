"""Trackers of runs of the real engine: what they have is what the run recorded."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.test_training import until_step
from tests.engine.toy import World
from tests.watch.trackers import KEY, TRACKERS_HERE, recorded, trackio_rows, wandb_server, without_key

pytestmark = [pytest.mark.training, TRACKERS_HERE]
pytest.importorskip("openrlhf")

BOTH = ("--set", "tracking.wandb=true", "--set", "tracking.trackio=true")


@pytest.fixture
def trackio_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    return tmp_path


def test_an_sft_is_tracked_in_addition_to_tensorboard(
    world: World, trackio_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = world.folder_of("tracked-sft")
    with wandb_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.address)
        world.run("sft", str(world.settings), "--name", "tracked-sft", "--set", "sft.steps=3", *BOTH)
    rows = recorded(run)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert server.lines("wandb-history.jsonl") == rows
    [*steps, summary] = trackio_rows(trackio_folder)
    assert steps == rows
    assert summary["step"] == 3
    assert list(run.tensorboard.rglob("events.out.tfevents.*"))
    assert without_key(run.path)


@pytest.mark.long
def test_a_killed_stage_goes_on_as_the_same_run_with_its_held_out_results(
    world: World, trackio_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = world.folder_of("tracked")
    held_out = ("--set", f"data.held_out={world.folder / 'questions.jsonl'}", "--set", "evaluation.questions=4")
    words = world.stage_words("tracked", "--steps", "4", *BOTH, *held_out)
    with wandb_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.address)
        child = until_step(3, run, world.command(*words))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        world.run(*words)
    assert len(server.runs) == 1
    rows = recorded(run)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    logged = [row for row in trackio_rows(trackio_folder) if "reward" in row]
    assert logged[:2] == rows[:2]
    assert logged[-2:] == rows[2:]  # trained again from the checkpoint of step 2
    assert server.lines("wandb-history.jsonl")[-2:] == rows[2:]
    assert "held_out/greedy/f1" in server.lines("wandb-summary.json")[-1]
    assert "held_out/greedy/f1" in trackio_rows(trackio_folder)[-1]
    assert without_key(run.path)


def test_the_engines_own_flag_for_a_key_is_refused() -> None:
    command = [sys.executable, "-m", "r1searcher.engine.openrlhf.main", "sft", "--logger.wandb.key", KEY]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "--logger.wandb.key would show the key: set [tracking.wandb]" in done.stderr
    assert KEY not in done.stderr
