"""One episode at a time: no request to a completions server computes from another one's prefix."""

import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from r1searcher.evaluation.evaluate import EvaluationRequest, evaluate


@pytest.mark.parametrize(("concurrency", "salted"), [(1, True), (2, False)])
def test_only_one_at_a_time_every_request_has_a_cache_of_its_own(
    searcher: Any, index: Path, questions: Path, tmp_path: Path, concurrency: int, salted: bool
) -> None:
    (tmp_path / "prompt.txt").write_text("Question: {question}\n")
    overrides = {
        "retrieval.url": str(index),
        "model.prompt": str(tmp_path / "prompt.txt"),
        "model.chat_template": False,
    }
    with open(os.devnull, "w") as nowhere:
        evaluate(
            EvaluationRequest(
                model=searcher.url,
                datasets=[str(questions)],
                to=tmp_path / "to",
                overrides=overrides,
                concurrency=concurrency,
            ),
            Console(file=nowhere),
        )
    salts = [call.get("cache_salt") for call in searcher.calls]
    assert len(salts) == 12
    assert (len(set(salts)) == 12 and None not in salts) if salted else set(salts) == {None}
