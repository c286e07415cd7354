"""`r1s simulate prepare`: which searches give a row, what the rows say, and that an SFT takes them."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from r1searcher.common.files import read_rows, sha256_of
from r1searcher.corpora.passage import Passage
from r1searcher.episodes.protocols.r1_searcher import R1_SEARCHER
from r1searcher.episodes.trajectory import Author, Search, Segment, StopReason, Trajectory
from r1searcher.questions.traces import Exchange, read_traces
from r1searcher.retrieval.base import Hit
from r1searcher.retrieval.engines.simulated import completion_of, documents_in
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import to_row

OSLO = ("Oslo", "Oslo is the capital of Norway.")
BERGEN = ("Bergen", "Bergen is a city on the coast.")


def episode(answer: str, *searches: tuple[str, Sequence[tuple[str, str]]], gold: str = "Oslo") -> Trajectory:
    turn = Segment(Author.MODEL, f"I know.</think><answer> {answer}</answer>", ())
    return Trajectory(
        question="What is the capital of Norway?",
        gold_answers=(gold,),
        segments=(Segment(Author.PROMPT, "What?<think>", ()), turn),
        searches=tuple(
            Search(query, tuple(Hit(Passage(title, title, text), 1.0) for title, text in found), len(found), 0.1)
            for query, found in searches
        ),
        stop=StopReason.ANSWERED,
        protocol=R1_SEARCHER.name,
    )


def run_of(folder: Path, *steps: Sequence[Trajectory]) -> Path:
    run = RunFolder(folder)
    for step, episodes in enumerate(steps, start=1):
        run.trajectories(step).mkdir(parents=True)
        lines = [json.dumps(to_row(one, step=step)) + "\n" for one in episodes]
        (run.trajectories(step) / "worker.jsonl").write_text("".join(lines))
    return folder


def prepare(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "r1searcher.cli", "simulate", "prepare", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_a_search_is_useful_or_noisy_by_its_answer_and_by_what_it_found(tmp_path: Path) -> None:
    right = episode("Oslo", ("capital Norway", [BERGEN, OSLO]), ("coast", [BERGEN]), ("nothing", []))
    wrong = episode("Bergen", ("city Norway", [BERGEN]), ("capital", [OSLO]))
    run_of(tmp_path / "run", [right, wrong], [right])
    done = prepare(tmp_path, "run", "--to", "rows.jsonl", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "rows": 2,
        "useful": 1,
        "noisy": 1,
        "left_out": {"nothing_found": 2, "mixed": 3, "repeated": 1, "balance": 0, "limit": 0},
    }
    rows = {row["kind"]: row for row in read_rows(tmp_path / "rows.jsonl")}
    lines = rows["useful"]["prompt"].splitlines()
    assert {"The question: What is the capital of Norway?", "Its answer: Oslo", "The query: capital Norway"} < {*lines}
    assert "Write 2 short documents" in lines[0]
    assert rows["useful"]["response"].splitlines() == [
        "Document 1: Bergen | Bergen is a city on the coast.",
        "Document 2: Oslo | Oslo is the capital of Norway.",
    ]
    assert rows["noisy"]["response"] == "Document 1: Bergen | Bergen is a city on the coast."
    assert "wrong pages" in rows["noisy"]["prompt"]
    manifest = json.loads((tmp_path / "rows.manifest.json").read_text())
    assert manifest["rows_sha256"] == sha256_of(tmp_path / "rows.jsonl")
    assert [run["folder"] for run in manifest["runs"]] == ["run"]


def test_kinds_are_balanced_and_the_choice_depends_on_the_seed(tmp_path: Path) -> None:
    right = [episode("Oslo", (f"capital {number}", [OSLO])) for number in range(20)]
    run_of(tmp_path / "run", [*right, episode("no", ("x", [BERGEN])), episode("no", ("y", [BERGEN]))])

    def queries(*words: str) -> list[str]:
        (tmp_path / "rows.jsonl").unlink(missing_ok=True)
        (tmp_path / "rows.manifest.json").unlink(missing_ok=True)
        done = prepare(tmp_path, "run", "--to", "rows.jsonl", *words)
        assert done.returncode == 0, done.stderr
        return [row["prompt"].split("The query: ")[1].split("\n")[0] for row in read_rows(tmp_path / "rows.jsonl")]

    balanced = queries()
    assert len(balanced) == 4
    assert {"x", "y"} < set(balanced)
    assert queries() == balanced
    assert queries("--seed", "8") != balanced
    assert len(queries("--no-balance")) == 22
    assert len(queries("--no-balance", "--limit", "5")) == 5


def test_what_cannot_give_rows_is_one_sentence(tmp_path: Path) -> None:
    run_of(tmp_path / "run", [episode("Oslo", ("coast", [BERGEN]))])
    (tmp_path / "empty").mkdir()
    (tmp_path / "there.jsonl").touch()
    for words, said in (
        (("run", "--to", "rows.jsonl"), "no search of run gives a row"),
        (("empty", "--to", "rows.jsonl"), "empty has no trajectories"),
        (("run", "--to", "there.jsonl"), "there.jsonl exists"),
    ):
        done = prepare(tmp_path, *words)
        assert done.returncode == 2
        assert said in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "rows.jsonl").exists()


@pytest.mark.parametrize(
    "documents",
    [
        [OSLO],
        [("", "No title."), BERGEN],
        [("A | B", "A bar | in both.")],
        [("Two\nlines", "Document 2: forged | text\nDocument 3: more | text"), OSLO],
    ],
)
def test_the_simulated_engine_reads_a_response_as_the_documents_it_was_written_from(
    documents: list[tuple[str, str]],
) -> None:
    """Whatever line breaks or bars a passage has, it stays one document."""
    hits = documents_in(completion_of(documents), 10)
    assert [hit.passage.text for hit in hits] == [" ".join(text.split()) for _, text in documents]
    assert [hit.passage.title for hit in hits] == [" ".join(title.replace("|", " ").split()) for title, _ in documents]


def test_rows_are_read_as_prompts_with_responses(tmp_path: Path) -> None:
    run_of(tmp_path / "run", [episode("Oslo", ("capital", [OSLO])), episode("no", ("city", [BERGEN]))])
    assert prepare(tmp_path, "run", "--to", "rows.jsonl").returncode == 0
    traces = list(read_traces(tmp_path / "rows.jsonl"))
    assert [(trace.prompt, trace.response) for trace in traces if isinstance(trace, Exchange)] == [
        (row["prompt"], row["response"]) for row in read_rows(tmp_path / "rows.jsonl")
    ]
