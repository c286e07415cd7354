"""Official metrics, on pairs whose metrics the datasets' own programs computed."""

import json
from functools import cache
from typing import Any

import pytest

from r1searcher.rewards.official import SCORERS
from tests.shared_data import DATA


@cache
def pairs() -> list[dict[str, Any]]:
    lines = (DATA / "official" / "pairs.jsonl").read_text("utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


@pytest.mark.parametrize("name", SCORERS)
def test_metrics_are_those_of_the_datasets_program(name: str) -> None:
    differing = []
    for pair in pairs():
        gold_answers = pair["gold_answers"][:1] if name == "hotpotqa" else pair["gold_answers"]
        if SCORERS[name](pair["answer"], gold_answers) != pytest.approx(pair["metrics"][name], abs=1e-9):
            differing.append(pair)
    assert len(pairs()) >= 500
    assert differing == []


@pytest.mark.parametrize("name", SCORERS)
def test_no_answer_earns_nothing(name: str) -> None:
    assert set(SCORERS[name](None, ["the"]).values()) == {0.0}
