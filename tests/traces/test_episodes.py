"""`r1s data traces`: which episodes become traces, and that they are the episodes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from r1searcher.common.files import read_rows
from r1searcher.corpora.passage import Passage
from r1searcher.episodes.protocols.r1_searcher import R1_SEARCHER
from r1searcher.episodes.trajectory import Author, Search, Segment, StopReason, Trajectory
from r1searcher.questions.traces import read_traces
from r1searcher.retrieval.base import Hit
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import to_row

BEGIN, END = "<|begin_of_query|>", "<|end_of_query|>"
DOCUMENT = "\n\n<|begin_of_documents|>\n(1)Title: Oslo Text: Oslo.\n<|end_of_documents|>\n\n"
RIGHT = "</think><answer> Oslo</answer>"


def episode(answer: str = RIGHT, thought: str = "hm", searched: bool = True, question: str = "Capital?") -> Trajectory:
    """`thought` decides the length: a token per letter."""
    query = Segment(Author.MODEL, f" {thought}{BEGIN} Norway{END}!", (1,) * len(thought), None, 1)
    documents = Segment(Author.ENVIRONMENT, DOCUMENT, (2, 2))
    found = Search("Norway", (Hit(Passage("1", "Oslo", "Oslo."), 1.0),), 1, 0.1)
    return Trajectory(
        question=question,
        gold_answers=("Oslo",),
        segments=(
            Segment(Author.PROMPT, "Capital?<think>", (3,)),
            *((query, documents) if searched else ()),
            Segment(Author.MODEL, answer, (4,)),
        ),
        searches=(found,) if searched else (),
        stop=StopReason.ANSWERED,
        protocol=R1_SEARCHER.name,
    )


def predictions(file: Path, *episodes: Trajectory) -> Path:
    rows = [json.dumps({"id": one.question, **to_row(one)}) + "\n" for one in episodes]
    file.write_text("".join(rows))
    return file


def traces(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "r1searcher.cli", "data", "traces", *words, "--to", "traces.jsonl"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def report(folder: Path, *words: str) -> dict[str, Any]:
    done = traces(folder, *words, "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_the_shortest_good_episode_of_each_question_is_kept_as_it_was(tmp_path: Path) -> None:
    predictions(
        tmp_path / "p.jsonl",
        episode(thought="long thought"),
        episode(thought="short"),
        episode(thought="short"),
        episode(thought="s", answer="</think><answer> Bergen</answer>"),
        episode(thought="s", answer=f"{RIGHT} and more"),
        episode(searched=False),
        episode(question="Other?"),
    )
    assert report(tmp_path, "p.jsonl") == {
        "traces": 2,
        "questions": 2,
        "left_out": {"no_episode": 0, "wrong": 1, "format": 1, "no_search": 1, "longer": 2},
    }
    assert {row["id"] for row in read_rows(tmp_path / "traces.jsonl")} == {"Capital?", "Other?"}
    [kept] = [row["segments"] for row in read_rows(tmp_path / "traces.jsonl") if row["id"] == "Capital?"]
    assert kept == [
        ["prompt", "Capital?<think>"],
        ["model", f" short{BEGIN} Norway{END}"],  # not what was sampled after the stop string
        ["environment", DOCUMENT],
        ["model", RIGHT],
    ]
    assert len(list(read_traces(tmp_path / "traces.jsonl"))) == 2


def test_several_per_question_are_different_ones(tmp_path: Path) -> None:
    predictions(tmp_path / "p.jsonl", *(episode(thought="x" * (1 + number % 3)) for number in range(9)))
    assert report(tmp_path, "p.jsonl", "--per-question", "5")["traces"] == 3


def test_episodes_without_a_search_are_kept_if_asked_for(tmp_path: Path) -> None:
    predictions(tmp_path / "p.jsonl", episode(searched=False))
    assert report(tmp_path, "p.jsonl", "--min-searches", "0")["traces"] == 1


def test_a_run_gives_the_episodes_of_all_its_steps_judged_by_its_own_settings(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    two_words = "</think><answer> the Oslo</answer>"
    for step, answer in enumerate((RIGHT, RIGHT, two_words), start=1):
        run.trajectories(step).mkdir(parents=True)
        predictions(run.trajectories(step) / "w.jsonl", episode(question=f"Question {step}?", answer=answer))
    run.manifest.write_text(json.dumps({"stage": "stage1", "settings_sha256": "0"}))
    run.config.write_text("[reward]\nmax_answer_words = 1\n")
    assert report(tmp_path, "run") | {"left_out": {}} == {"traces": 2, "questions": 2, "left_out": {}}
    run.config.write_text("")
    for file in tmp_path.glob("traces.*"):
        file.unlink()
    assert report(tmp_path, "run")["traces"] == 3


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("missing.jsonl", "does not exist"),
        ("empty", "empty has no episodes"),
        ("wrong.jsonl", "no episode of wrong.jsonl is good enough for a trace (the answer is wrong: 1)"),
        ("answers.jsonl", "the row has an answer only, without the episode: 1"),
    ],
)
def test_sources_without_good_episodes_are_one_sentence(tmp_path: Path, source: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    predictions(tmp_path / "wrong.jsonl", episode(answer="</think><answer> x</answer>"))
    (tmp_path / "answers.jsonl").write_text('{"question": "a", "answer": "Oslo", "prediction": "Oslo"}\n')
    done = traces(tmp_path, source)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "traces.jsonl").exists()
