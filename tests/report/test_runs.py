"""`r1s runs` and `r1s rescore`: what the files of runs say, and what another reward would change."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from r1searcher.common.files import append_row, write_json, write_text
from r1searcher.errors import InputError
from r1searcher.report.rescore import Rescored, RescoreRequest, change_of, rescored, run_rescore
from r1searcher.report.runs import run_folders, run_list, status_of
from r1searcher.runs.folder import RunFolder
from tests.report.test_report import RIGHT, WRONG, a_run, episode

LAUNCH = "0123456789abcdef" * 2


def test_the_files_of_a_run_say_its_state(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    found = status_of(run.path)
    assert (found.state, found.stage, found.step, found.updated) == ("interrupted", "stage1", 3, 0.0)
    assert found.metrics["f1"] == 0.75
    write_json(run.launch_note, {"launch": LAUNCH})
    assert status_of(run.path).state == "interrupted"  # a kill -9 leaves the note
    assert "another machine" in status_of(run.path).detail
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=-1, env={**os.environ, "R1S_LAUNCH": LAUNCH}
    ) as child:
        assert status_of(run.path).state == "running"
        child.communicate(b"\n")
    write_text(run.stop_note, "step 3: reward is 0\n")
    assert (status_of(run.path).state, status_of(run.path).detail) == ("stopped", "step 3: reward is 0")
    run.stop_note.unlink()
    write_json(run.ending, {"reason": "thresholds reached", "step": 3, "detail": "f1 0.75"})
    assert status_of(run.path).state == "ended"
    write_json(run.summary, {"stage": "stage1", "model": "m"})
    assert (status_of(run.path).state, status_of(run.path).detail) == ("finished", "thresholds reached f1 0.75")


def test_runs_are_listed_from_any_depth_and_a_damaged_one_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a/b/stage1", "c"):
        a_run(tmp_path / name)
    write_text(RunFolder(tmp_path / "c").metrics, '{"step": "x"}\n')
    a_run(tmp_path / "c" / "inside")  # folders of a run are not searched
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    assert {path.relative_to(tmp_path).as_posix() for path in run_folders(tmp_path)} == {"a/b/stage1", "c"}
    run_list(tmp_path, as_json=True)
    rows = {row["run"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert rows[str(tmp_path / "a/b/stage1")]["metrics"]["f1"] == 0.75
    assert rows[str(tmp_path / "c")]["state"] == "damaged"
    assert "step" in rows[str(tmp_path / "c")]["detail"]


def test_a_folder_without_runs_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no runs"):
        run_list(tmp_path, as_json=False)
    with pytest.raises(InputError, match="is not a folder"):
        run_list(tmp_path / "missing", as_json=False)


def scored(folder: Path, *episodes: tuple[str, float], stage: str = "stage1") -> Path:
    """A run of one step, in which the episodes of one question have these texts and rewards."""
    run = a_run(folder, stage=stage, steps=0)
    for text, reward in episodes:
        append_row(run.trajectories(1) / "a.jsonl", episode(text, id="q", reward=reward, parts={}))
    return run.path


def test_another_recipe_is_scored_in_the_runs_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Paper, stage 1: 0.5 for a search and 0.5 for the format; stage 2: F1, minus 2 for a broken format."""
    run = scored(tmp_path / "run", (RIGHT, 5.0), (WRONG, 5.0))
    assert [one.after for one in rescored(RescoreRequest(run=run, recipe="paper"))] == [1.0, 0.5]
    assert [one.after for one in rescored(RescoreRequest(run=run, recipe="paper:stage2"))] == [1.0, 0.0]
    assert [one.after for one in rescored(RescoreRequest(run=run, recipe="released-qwen"))] == [1.0, 0.0]
    assert [one.after for one in rescored(RescoreRequest(run=run, recipe="f1"))] == [1.0, 0.0]
    run_rescore(RescoreRequest(run=run, recipe="f1", examples=1, as_json=True))
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert said["steps"] == {
        "1": {
            "episodes": 2,
            "before": 5.0,
            "after": 0.5,
            "changed": 1.0,
            "flat_before": 1.0,
            "flat_after": 0.0,
            "reversed": 0.0,
        }
    }
    assert [(one["before"], one["after"], one["answer"]) for one in said["examples"]] == [(5.0, 0.0, " Bergen ")]


def test_pairs_count_as_reversed_only_within_a_group() -> None:
    def one(id_: str, before: float, after: float) -> Rescored:
        return Rescored(1, id_, "q", ("a",), None, "answered", before, after, {})

    change = change_of([one("a", 1, 0), one("a", 0, 1), one("a", 0, 0), one("b", 0, 5), one("b", 0, 5)])
    assert change.reversed == 1 / 4  # of a's three pairs and b's one: only the first of a has another order
    assert (change.flat_before, change.flat_after) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("recipe", "steps", "said"),
    [("papper", (), "--recipe 'papper' is not a recipe"), ("f1", (9,), "no trajectories of step 9")],
)
def test_what_cannot_be_scored_is_one_sentence(recipe: str, steps: tuple[int, ...], said: str, tmp_path: Path) -> None:
    run = scored(tmp_path / "run", (RIGHT, 1.0))
    with pytest.raises(InputError, match=said):
        run_rescore(RescoreRequest(run=run, recipe=recipe, steps=steps))


def test_episodes_without_a_reward_are_named(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", steps=0)
    append_row(run.trajectories(1) / "a.jsonl", episode(RIGHT, id="q"))
    with pytest.raises(InputError, match=r"reward.*is damaged|damaged.*reward"):
        rescored(RescoreRequest(run=run.path, recipe="f1"))
