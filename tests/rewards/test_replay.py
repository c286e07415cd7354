"""The released trajectories through the recipes, against the published formulas on the raw text."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from r1searcher.config.settings import Reward as Settings
from r1searcher.evaluation.predictions import from_text
from r1searcher.rewards.metrics import score
from r1searcher.rewards.recipes import reward_function
from tests.shared_data import shared

FILES = ("bamboogle_qwen", "hotpotqa_qwen")
DOCUMENTS = re.compile(r"<\|begin_of_documents\|>.*?<\|end_of_documents\|>", re.DOTALL)


def rows(name: str) -> Iterator[dict[str, Any]]:
    with shared(f"data/r1-searcher/eval_results/{name}.jsonl").open() as lines:
        yield from map(json.loads, lines)


def answer_in(text: str) -> str | None:
    found = re.findall(r"<answer>(.*?)</answer>", text, re.DOTALL)
    return found[-1] if found else None


def tags_agree(text: str) -> bool:
    counts = {text.count(f"<|{side}_of_{what}|>") for side in ("begin", "end") for what in ("query", "documents")}
    return len(counts) == 1


def one_each(text: str) -> bool:
    return text.count("</think>") == text.count("<answer>") == text.count("</answer>") == 1


def chinese(text: str) -> bool:
    return any("\u4e00" <= c <= "\u9fff" for c in DOCUMENTS.sub("", text))


def released_qwen(text: str, golds: tuple[str, ...], searched: str) -> float:
    answer = answer_in(text)
    fine = (
        tags_agree(text)
        and one_each(text)
        and not chinese(text)
        and "assistant" not in searched
        and answer is not None
        and not re.search(r"</?(think|answer)>|<\|(begin|end)_of_", answer)
        and len(answer.split()) <= 10
    )
    return score(answer, golds).f1 + (0.0 if fine else -2.0)


@pytest.mark.parametrize("name", FILES)
def test_replayed_rewards_are_what_the_formulas_say(name: str) -> None:
    recipes = {
        (recipe, stage, flaw): reward_function(Settings(recipe=recipe), f"stage{stage}", released_flaw=flaw)
        for recipe, stage, flaw in (
            ("released-llama", 1, True),
            ("released-llama", 2, True),
            ("released-qwen", 2, True),
            ("released-qwen", 2, False),
        )
    }
    for row in rows(name):
        text, golds = row["gen_text_store"], (row["answer"],)
        trajectory = from_text(row["question"], golds, text)
        covered = score(answer_in(text), golds).cover_em
        searched = tags_agree(text) and text.count("<|begin_of_query|>") >= 1
        fine = tags_agree(text) and one_each(text) and not chinese(text)
        expected = {
            ("released-llama", 1, True): (1 if covered else -1) + 0.5 * searched + 0.5 * one_each(text),
            ("released-llama", 2, True): score(answer_in(text), golds).f1 + (0 if fine else -1),
            ("released-qwen", 2, True): released_qwen(text, golds, text),
            ("released-qwen", 2, False): released_qwen(text, golds, DOCUMENTS.sub("", text)),
        }
        for key, reward in recipes.items():
            assert reward(trajectory).total == pytest.approx(expected[key]), (key, row["question"])


@pytest.mark.parametrize(
    ("name", "broken", "flawed", "mended"), [("bamboogle_qwen", 0, 6, 0), ("hotpotqa_qwen", 2, 12, 2)]
)
def test_how_many_trajectories_each_recipe_finds_broken(name: str, broken: int, flawed: int, mended: int) -> None:
    replayed = [from_text(row["question"], (row["answer"],), row["gen_text_store"]) for row in rows(name)]

    def count(recipe: str, flaw: bool = True) -> int:
        reward = reward_function(Settings(recipe=recipe), "stage2", released_flaw=flaw)
        return sum(min(reward(trajectory).parts.values()) < 0 for trajectory in replayed)

    assert (count("paper"), count("released-qwen"), count("released-qwen", False)) == (broken, flawed, mended)
