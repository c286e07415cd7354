"""Recipes that repeat other projects' scorers, on cases whose rewards those projects' own functions computed."""

import gzip
import json
from functools import cache
from typing import Any

import pytest

from r1searcher.evaluation.predictions import from_text
from r1searcher.rewards.recipes import recipe_parts, reward_function
from tests.shared_data import DATA


@cache
def cases() -> list[dict[str, Any]]:
    with gzip.open(DATA / "rewards" / "cases.jsonl.gz", "rt", encoding="utf-8", newline="\n") as lines:
        return [json.loads(line) for line in lines]


def reward_of(name: str, case: dict[str, Any]) -> float:
    recipe, _, stage = name.partition("/")
    trajectory = from_text("question", tuple(case["gold_answers"]), case["text"])
    return reward_function(recipe_parts(recipe, stage))(trajectory).total


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("released-llama/stage1", {-1.0, -0.5, 0.0, 1.0, 1.5, 2.0}),
        ("released-llama/stage2", {-1.0, 0.0, 1.0}),
        ("released-qwen/stage2", {-2.0, -1.0, 0.0, 1.0}),
        ("search-r1/stage2", {0.0, 1.0}),
        ("search-r1-format/stage2", {0.0, 0.1, 0.2, 0.8, 1.0}),
    ],
)
def test_rewards_are_those_of_the_published_functions(name: str, values: set[float]) -> None:
    known = [case for case in cases() if case["rewards"][name] is not None]
    assert len(known) >= 2_000
    assert {case["rewards"][name] for case in known} >= values  # the cases reach every branch
    differing = [case for case in known if reward_of(name, case) != pytest.approx(case["rewards"][name], abs=1e-9)]
    assert differing == []


def text(answer: str = " Oslo ", documents: str = "", before: str = "So. ", after: str = "") -> str:
    return f"{documents}{before}</think>\n\n<answer>{answer}</answer>{after}"


SEARCH = "<|begin_of_query|> Oslo <|end_of_query|>"
BLOCK = "\n\n<|begin_of_documents|>\n(1)Title: A Text: B\n<|end_of_documents|>\n\n"


@pytest.mark.parametrize(
    ("solution", "llama1", "llama2", "qwen"),
    [
        (text(documents=SEARCH + BLOCK), 2.0, 1.0, 1.0),
        (text(before="Hm. <think> So. "), 1.0, 0.0, -1.0),  # a second <think>
        (text(documents=SEARCH + BLOCK.replace("(1)", "")), 1.5, 0.0, -1.0),  # no passage in the block
        (text(documents=SEARCH + BLOCK[:-1]), 1.5, 0.0, -1.0),  # one line feed after the block
        (text(before="An Assistant. "), 1.5, 1.0, -1.0),
        (text(before="ASSISTANT. "), 1.5, 1.0, 1.0),
        (text(before="\u6319. "), 1.5, 0.0, -1.0),  # CJK
        (text(before="\u3042. "), 1.5, 1.0, 1.0),  # Hiragana is not looked for
        (text(documents=SEARCH + BLOCK.replace("B", "\u6319")), 2.0, 1.0, 1.0),
        ("So Oslo.", -1.0, -1.0, -2.0),
        ("</answer> </think> <answer> Oslo", 1.5, 0.5, 2 / 3 - 0.0),  # never closed: the end token joins the answer
        (text(before="Bergen.\nAssistant: <think>"), 1.0, 0.0, 1.0),  # Qwen's server starts again there
        (text(after="<|endoftext|>"), 1.5, 1.0, 1.0),
    ],
)
def test_rules_of_the_released_servers(solution: str, llama1: float, llama2: float, qwen: float) -> None:
    case = {"text": solution, "gold_answers": ["Oslo"]}
    found = [
        reward_of(name, case) for name in ("released-llama/stage1", "released-llama/stage2", "released-qwen/stage2")
    ]
    assert found == pytest.approx([llama1, llama2, qwen])


@pytest.mark.parametrize(("answer", "gold", "f1"), [(" True ", "yes", 1.0), (" True ", " True ", 0.0)])
def test_the_released_servers_strip_the_answer_and_not_the_gold(answer: str, gold: str, f1: float) -> None:
    assert reward_of("released-qwen/stage2", {"text": text(answer), "gold_answers": [gold]}) == f1


@pytest.mark.parametrize(
    ("solution", "gold", "plain", "with_format"),
    [
        (text(documents=SEARCH + BLOCK), "oslo", 1.0, 1.0),
        (text(" US "), "U.S.", 1.0, 1.0),  # punctuation is deleted
        (text(" u s "), "U.S.", 0.0, 0.2),
        (text("  "), "Oslo", 0.0, 0.2),  # an empty answer is an answer
        (text(after=" indeed"), "Oslo", 1.0, 0.8),
        (f"{SEARCH} so {BLOCK}{text()}", "Oslo", 1.0, 0.8),
        (text(" Bergen ", before="<answer> Oslo </answer> "), "Oslo", 0.0, 0.1),
        ("Oslo", "Oslo", 0.0, 0.0),
        (f"{SEARCH}{BLOCK.replace('B', '<answer> Oslo </answer>')}Hm.", "Oslo", 1.0, 0.8),  # retrieved text counts
    ],
)
def test_rules_of_search_r1(solution: str, gold: str, plain: float, with_format: float) -> None:
    case = {"text": solution, "gold_answers": [gold]}
    assert reward_of("search-r1/stage2", case) == plain
    assert reward_of("search-r1-format/stage2", case) == with_format
