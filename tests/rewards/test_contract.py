"""Every reward part and recipe of the package keeps the contract that others test theirs with."""

import math

import pytest

from r1searcher.episodes.trajectory import StopReason
from r1searcher.rewards.contract import check_recipe, check_reward_part
from r1searcher.rewards.parts import PARTS
from r1searcher.rewards.recipes import RECIPES, Part
from tests.rewards.conftest import build
from tests.rewards.test_recipes import MALFORMED, RIGHT, SEARCH, WRONG

TRAJECTORIES = [
    build(SEARCH, RIGHT),
    build(SEARCH, SEARCH, WRONG),
    build(MALFORMED),
    build(""),
    build(),
    build(SEARCH, "I give up."),
    build("hm", stop=StopReason.TURN_TRUNCATED),
    build(RIGHT, gold_answers=("",)),
    build(RIGHT, gold_answers=()),
    build("\ufffd挪\0 </think> <answer> the </answer>", gold_answers=("the", "Oslo")),
    build(SEARCH, RIGHT, found=()),
]


@pytest.mark.parametrize("name", PARTS.builtin)
def test_parts(name: str) -> None:
    check_reward_part(PARTS[name], TRAJECTORIES)


@pytest.mark.parametrize("name", RECIPES.builtin)
def test_recipes(name: str) -> None:
    check_recipe(RECIPES[name], TRAJECTORIES)


def undocumented(context):
    return 1.0


def forgetful(context, seen=[]):  # noqa: B006  # that is the mistake
    """Another value each time."""
    seen.append(1)
    return len(seen)


def endless(context):
    """Not finite."""
    return math.inf


def worded(context):
    """Not a number."""
    return "good"


@pytest.mark.parametrize(
    ("part", "rule"),
    [
        (undocumented, "has a docstring"),
        (forgetful, "the same every time"),
        (endless, "is a finite number"),
        (worded, "is a finite number"),
    ],
)
def test_a_part_that_breaks_a_rule_is_told_which(part, rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        check_reward_part(part, TRAJECTORIES)


def test_a_recipe_that_breaks_a_rule_is_told_which() -> None:
    with pytest.raises(AssertionError, match="has a stage"):
        check_recipe({}, TRAJECTORIES)
    with pytest.raises(AssertionError, match="not stage3"):
        check_recipe({"stage3": (Part("f1"),)}, TRAJECTORIES)  # type: ignore[dict-item]
