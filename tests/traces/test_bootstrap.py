"""`r1s data bootstrap`: the file of traces, its manifest and the report."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from r1searcher.common.files import read_rows, sha256_of
from r1searcher.config.settings import load
from r1searcher.corpora.passage import Passage
from r1searcher.episodes.trajectory import Author, Segment, StopReason, Trajectory
from r1searcher.questions.named import open_dataset
from r1searcher.questions.traces import Trace, read_traces
from r1searcher.retrieval.engines.bm25 import EmbeddedIndex
from r1searcher.retrieval.indexing.bm25 import build
from r1searcher.rewards.metrics import normalize
from r1searcher.rewards.parts import RewardContext
from r1searcher.traces.bootstrap import bootstrap, trace_maker
from tests.evaluation.conftest import tokenizer_folder  # noqa: F401  # a fixture
from tests.shared_data import shared

QUESTIONS = [
    {"id": "one", "question": "Who composed the music of Silver Harbor?", "answer": "Rosa Lang"},
    {"id": "two", "question": "Which hobby has the director of Silver Harbor?", "answer": "chess"},
    {"id": "compare", "question": "Which film is older, Silver Harbor or Cold Mirror?", "answer": "Cold Mirror"},
    {"id": "yes", "question": "Are Silver Harbor and Cold Mirror both films?", "answer": "yes"},
    {"id": "nobody", "question": "Who is the mayor of Nowhere?", "answer": "Ada"},
    {"id": "nothing", "question": "Who is the mayor of Foxford?", "answer": "Ada"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    return tmp_path


def r1s(folder: Path, model: Path, retriever: object, *words: str) -> "subprocess.CompletedProcess[str]":
    options = ["--model", str(model), "--retriever", str(retriever), "--to", "traces.jsonl"]
    options += ["--set", "model.prompt=bare", "--set", "model.chat_template=false", "--set", "episode.top_k=1"]
    return subprocess.run(
        [sys.executable, "-m", "r1searcher.cli", "data", "bootstrap", "questions.jsonl", *options, *words],
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_the_report_counts_how_questions_gave_a_trace_and_why_not(
    folder: Path,
    index: Path,
    tokenizer_folder: Path,  # noqa: F811
) -> None:
    done = r1s(folder, tokenizer_folder, index, "--json", "--seed", "5", "--questions-to", "reached.jsonl")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report == {
        "questions": 6,
        "traces": 4,
        "written": {"one_search": 1, "bridge": 1, "comparison": 1, "yes_no": 1},
        "not_written": {"no_name": 1, "not_found": 1, "name_not_found": 0, "long": 0, "format": 0},
    }
    manifest = json.loads((folder / "traces.manifest.json").read_text())
    assert {key: manifest[key] for key in report} == report
    assert manifest["questions_sha256"] == sha256_of(folder / "questions.jsonl")
    assert manifest["traces_sha256"] == sha256_of(folder / "traces.jsonl")
    assert (manifest["seed"], manifest["retriever"]["passages"]) == (5, 5)
    assert len(list(read_traces(folder / "traces.jsonl"))) == 4
    order = [row["id"] for row in QUESTIONS]
    random.Random(5).shuffle(order)
    assert [row["id"] for row in read_rows(folder / "traces.jsonl")] == [
        name for name in order if name not in ("nobody", "nothing")
    ]
    reached = open_dataset(str(folder / "reached.jsonl"))
    assert not reached.warnings
    originals = {question.id: question for question in open_dataset(str(folder / "questions.jsonl")).questions}
    assert list(reached.questions) == [originals[name] for name in order if name not in ("nobody", "nothing")]


def test_it_stops_at_the_limits_and_prints_a_table(
    folder: Path,
    index: Path,
    tokenizer_folder: Path,  # noqa: F811
) -> None:
    done = r1s(folder, tokenizer_folder, index, "--limit", "4", "--max-traces", "3")
    assert done.returncode == 0, done.stderr
    assert "3 traces of 3 questions: traces.jsonl" in done.stdout
    assert len(list(read_traces(folder / "traces.jsonl"))) == 3
    again = r1s(folder, tokenizer_folder, index)
    assert again.returncode == 2
    assert "traces.jsonl exists: remove it, or choose another file with --to" in again.stderr
    same = r1s(folder, tokenizer_folder, index, "--to", "more.jsonl", "--questions-to", "questions.jsonl")
    assert same.returncode == 2
    assert "questions.jsonl exists: remove it, or choose another file with --questions-to" in same.stderr
    both = r1s(folder, tokenizer_folder, index, "--to", "more.jsonl", "--questions-to", "more.jsonl")
    assert both.returncode == 2
    assert "--questions-to and --to would both write more.jsonl" in both.stderr


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (("--model", ""), "model.path is not set: give the model that the SFT will start from with --model", 2),
        (
            ("--set", "episode.max_context=30", "--set", "episode.max_new_tokens=8"),
            "longer than episode.max_context",
            2,
        ),
        (("--set", "episode.protocol=mine"), "episode.protocol: there is no protocol 'mine'", 2),
        (("--retriever", "http://127.0.0.1:9/retrieve", "--set", "retrieval.retry_timeout_s=0.1"), "127.0.0.1:9", 1),
    ],
)
def test_what_cannot_work_is_one_sentence_and_no_file(
    *,
    folder: Path,
    index: Path,
    tokenizer_folder: Path,  # noqa: F811
    words: tuple[str, ...],
    said: str,
    code: int,
) -> None:
    done = r1s(folder, tokenizer_folder, index, *words)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(folder.glob("traces*"))


def context_of(trace: Trace, question: str, gold_answers: tuple[str, ...]) -> RewardContext:
    segments = tuple(Segment(author, text, ()) for author, text in trace)
    return RewardContext(Trajectory(question, gold_answers, segments, (), StopReason.ANSWERED, "r1-searcher"))


@pytest.mark.shared
@pytest.mark.parametrize(("name", "least"), [("hotpotqa_500", 200), ("2wiki_500", 200)])
async def test_real_questions_and_passages_give_traces_that_the_reward_finds_right(
    tmp_path: Path,
    tokenizer_folder: Path,  # noqa: F811
    name: str,
    least: int,
) -> None:
    questions = open_dataset(str(shared(f"data/r1-searcher/eval_set/{name}.jsonl"))).questions
    rows = read_rows(shared("data/retrieval/c20k.jsonl"))
    build((Passage(row["id"], row["title"], row["text"]) for row in rows), tmp_path / "index")
    overrides = {"model.path": str(tokenizer_folder), "episode.max_context": 4000, "episode.top_k": 2}
    maker = trace_maker(load("sft", preset="demo", overrides=overrides))
    made = await bootstrap(questions, maker, EmbeddedIndex(tmp_path / "index"))
    assert made.asked == len(questions) == 500
    assert len(made.traces) == sum(made.ways.values()) > least
    assert all(made.ways.values())
    by_id = {question.id: question for question in questions}
    for id_, trace in made.traces:
        question = by_id[id_]
        context = context_of(trace, question.text, question.gold_answers)
        assert not context.violations
        assert context.scores.em == 1
        assert 1 <= sum(author is Author.ENVIRONMENT for author, _ in trace) <= 3
        yes_no = all(normalize(gold) in ("yes", "no") for gold in question.gold_answers)
        assert yes_no or context.answer_in_documents
