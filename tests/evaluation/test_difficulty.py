"""`r1s data select`: attempts are counted as they are sampled, and episodes that are there are used again."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from r1searcher.common.files import read_rows
from r1searcher.errors import InputError, ServiceError
from r1searcher.evaluation import engines
from r1searcher.evaluation.difficulty import Difficulty, SelectRequest, Thresholds, run_select
from r1searcher.evaluation.evaluate import EvaluationRequest
from tests.evaluation.conftest import CAPITALS, Server

NEEDED = dict(zip(CAPITALS, (1, 3, 4, 5, 8, 99), strict=True))
"""The attempts that each country takes the model of these tests."""


@pytest.fixture
def model(serve: Any, tokenizer_folder: Path) -> Server:
    """Answers at once: right from the attempt of `NEEDED` on, which it learns from the seed of the request."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)

    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path.endswith("/models"):
            return 200, {"data": [{"id": "rule", "root": str(tokenizer_folder)}]}
        question = tokenizer.decode(body["prompt"]).rpartition("Question: ")[2]
        country = next(name for name in CAPITALS if name in question)
        attempt = (body["seed"] - 7 * 1_000_003) % 1_009 + 1
        text = f" Hm. </think> <answer> {CAPITALS[country] if attempt >= NEEDED[country] else 'No'} </answer>"
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return 200, {"choices": [{"token_ids": ids, "text": text, "finish_reason": "stop", "stop_reason": "</answer>"}]}

    return serve(answer)


def select(model: Server, questions: Path, index: Path, to: Path, samples: int = 8, **more: Any) -> dict[str, Any]:
    rollouts = EvaluationRequest(
        model=model.url,
        datasets=[str(questions)],
        to=to,
        samples=samples,
        temperature=1.0,
        concurrency=1,
        overrides={"retrieval.url": str(index), "seed": 7, "model.prompt": "base", "model.chat_template": False},
    )
    run_select(SelectRequest(rollouts=rollouts, **more))
    return dict(json.loads((to / "selection.json").read_text()))


def countries(folder: Path, difficulty: str) -> dict[str, int | None]:
    rows = read_rows(folder / f"{difficulty}.jsonl")
    return {row["question"].split()[-1].rstrip("?"): row["attempts"] for row in rows}


def test_questions_are_sorted_by_the_attempts_that_they_take(
    model: Server, questions: Path, index: Path, tmp_path: Path
) -> None:
    report = select(model, questions, index, tmp_path / "s")
    assert countries(tmp_path / "s", "easy") == {"Norway": 1, "Peru": 3}
    assert countries(tmp_path / "s", "medium") == {"Ghana": 4, "Chile": 5, "Latvia": 8}
    assert countries(tmp_path / "s", "hard") == {"Nepal": None}
    assert report["by_attempts"] == {"1": 1, "3": 1, "4": 1, "5": 1, "8": 1}
    assert report["never_right"] == 1
    assert [row["answer"] for row in report["examples"]["hard"]] == [" No "]
    assert len(model.calls) == 1 + 3 + 4 + 5 + 8 + 8  # no question is sampled after its right answer


def test_the_same_command_and_other_thresholds_use_the_episodes_that_are_there(
    model: Server, questions: Path, index: Path, tmp_path: Path
) -> None:
    select(model, questions, index, tmp_path / "s")
    asked = len(model.calls)
    report = select(model, questions, index, tmp_path / "s", easy_below=5, hard_above=6)
    assert countries(tmp_path / "s", "hard") == {"Latvia": 8, "Nepal": None}
    assert (report["easy"], report["medium"]) == (3, 1)
    select(model, questions, index, tmp_path / "s", samples=4)
    assert countries(tmp_path / "s", "hard") == {"Chile": None, "Latvia": None, "Nepal": None}
    assert len(model.calls) == asked
    select(model, questions, index, tmp_path / "s", samples=10)
    assert len(model.calls) == asked + 2  # two more attempts at Nepal


def test_an_interrupted_selection_continues_where_it_was(
    model: Server, questions: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "RETRIES", engines.RetryPolicy(tries=1))
    right = model.answer

    def failing(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        return right(path, body) if len(model.calls) < 10 or path.endswith("/models") else (500, {})

    model.answer = failing
    with pytest.raises(ServiceError):
        select(model, questions, index, tmp_path / "s")
    model.answer = right
    select(model, questions, index, tmp_path / "s")
    rows = Counter((row["index"], row["sample"]) for row in read_rows(tmp_path / "s" / "predictions.jsonl"))
    assert max(rows.values()) == 1
    assert rows.total() == 1 + 3 + 4 + 5 + 8 + 8
    assert countries(tmp_path / "s", "easy") == {"Norway": 1, "Peru": 3}


@pytest.mark.parametrize(
    ("attempts", "difficulty"), [(1, "easy"), (9, "easy"), (10, "medium"), (20, "medium"), (21, "hard"), (None, "hard")]
)
def test_the_papers_thresholds(attempts: int | None, difficulty: str) -> None:
    """R1-Searcher, 3.1: easy below 10 rollouts, medium 10 to 20, hard above 20."""
    assert Thresholds.of(20, None, None).difficulty(attempts) is Difficulty(difficulty)


@pytest.mark.parametrize(("easy_below", "hard_above"), [(9, None), (5, 4), (None, 9)])
def test_thresholds_that_do_not_fit_are_refused(easy_below: int | None, hard_above: int | None) -> None:
    with pytest.raises(InputError, match="--samples 8"):
        Thresholds.of(8, easy_below, hard_above)
