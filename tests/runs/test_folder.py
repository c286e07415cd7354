"""The run folder's files: whole rows, whatever writes them at once and wherever a crash cuts."""

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from r1searcher.common.files import append_row, last_row, read_rows
from r1searcher.corpora.passage import Passage
from r1searcher.episodes.trajectory import Author, Search, Segment, StopReason, Trajectory
from r1searcher.retrieval.base import Hit
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import finished_steps, from_row, to_row


def write_many(arguments: tuple[str, int]) -> None:
    file, writer = arguments
    for number in range(50):
        append_row(Path(file), {"writer": writer, "number": number, "text": "x" * 20_000})


def test_rows_of_several_processes_never_mix(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    with ProcessPoolExecutor(4) as pool:
        list(pool.map(write_many, [(str(file), writer) for writer in range(4)]))
    rows = list(read_rows(file))
    assert sorted((row["writer"], row["number"]) for row in rows) == [(w, n) for w in range(4) for n in range(50)]


def test_a_row_that_a_crash_cut_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    for step in (1, 2):
        append_row(file, {"step": step})
    with file.open("a") as handle:
        handle.write('{"step": 3, "rew')
    assert [row["step"] for row in read_rows(file)] == [1, 2]
    assert last_row(file) == {"step": 2}
    assert finished_steps(RunFolder(tmp_path)) == 2


def test_the_last_row_is_found_behind_rows_of_any_length(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    for length in (10, 100_000, 70_000):
        append_row(file, {"length": length, "text": "y" * length})
        row = last_row(file)
        assert row is not None
        assert row["length"] == length
    assert last_row(tmp_path / "missing.jsonl") is None


def test_a_trajectory_survives_its_row() -> None:
    trajectory = Trajectory(
        question="Which river?",
        gold_answers=("Arden", "the Arden"),
        segments=(
            Segment(Author.PROMPT, "Q<think>", (1, 2)),
            Segment(Author.MODEL, " look </answer>.", (3, 4), (-0.5, -0.25), overhang=1),
            Segment(Author.ENVIRONMENT, "東京 \ud800", (5,)),
        ),
        searches=(Search("river", (Hit(Passage("1", "T", "x"), 2.5),), 1, 0.25),),
        stop=StopReason.ANSWERED,
        protocol="r1-searcher",
    )
    row = json.loads(json.dumps(to_row(trajectory, reward=1.0)))
    assert row["reward"] == 1.0
    assert from_row(row) == trajectory
