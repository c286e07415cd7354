"""Released trajectories through the recipes: a cut that everyone has, and the whole files where they are there."""

import json
from pathlib import Path
from statistics import fmean

import pytest

from r1searcher.evaluation.predictions import from_text
from r1searcher.rewards.recipes import recipe_parts, reward_function
from tests.shared_data import DATA, shared

RESULTS = "r1-searcher/eval_results"


def rewards(file: Path, recipe: str) -> list[dict[str, float]]:
    """Parts of each trajectory's stage-2 reward."""
    reward = reward_function(recipe_parts(recipe, "stage2"))
    with file.open(encoding="utf-8", newline="\n") as lines:
        rows = [json.loads(line) for line in lines]
    return [dict(reward(from_text(r["question"], (r["answer"],), r["gen_text_store"])).parts) for r in rows]


def broken(file: Path, recipe: str) -> int:
    return sum(min(parts.values()) < 0 for parts in rewards(file, recipe))


@pytest.mark.parametrize(("name", "paper", "qwen", "fixed"), [("bamboogle_qwen", 0, 6, 0), ("hotpotqa_qwen", 2, 20, 3)])
def test_how_many_trajectories_each_recipe_finds_broken(name: str, paper: int, qwen: int, fixed: int) -> None:
    """The cut holds every broken trajectory of the released files. One model wrote "Assistant Director" itself."""
    file = DATA / RESULTS / f"{name}.jsonl"
    found = [broken(file, recipe) for recipe in ("paper", "released-qwen", "released-qwen-fixed")]
    assert found == [paper, qwen, fixed]


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "mean", "qwen", "fixed"), [("bamboogle_qwen", 0.481, 6, 0), ("hotpotqa_qwen", 0.641, 20, 3)]
)
def test_the_whole_released_files(name: str, mean: float, qwen: int, fixed: int) -> None:
    file = shared(f"data/{RESULTS}/{name}.jsonl")
    earned = rewards(file, "released-qwen")
    assert round(fmean(sum(parts.values()) for parts in earned), 3) == mean
    assert (broken(file, "released-qwen"), broken(file, "released-qwen-fixed")) == (qwen, fixed)
