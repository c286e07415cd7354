"""Rewards as weighted sums of parts: named ones (recipes), and compositions in a stage's TOML.

    [reward]
    recipe = "paper"

or

    [[reward.parts]]
    name = "f1"
    [[reward.parts]]
    name = "format"
    weight = 0
    if_zero = -2

A part earns `weight x value`; if `if_zero` is given, it earns that instead when its value is 0.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import ConfigDict, Field

from r1searcher.common.registry import Registry
from r1searcher.episodes.trajectory import Trajectory
from r1searcher.errors import InputError
from r1searcher.rewards.format import MAX_ANSWER_WORDS, judged_rules
from r1searcher.rewards.parts import PARTS, RewardContext, part_with

RewardedStage = Literal["stage1", "stage2"]
Weight = Annotated[float, Field(strict=True, ge=-1_000_000, le=1_000_000, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Part:
    """One summand of a reward: a part of `rewards.parts.PARTS` with its weight. Also a table `[[reward.parts]]`."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    weight: Weight = 1.0
    if_zero: Weight | None = None
    """What the part earns instead of `weight x value` when its value is 0 (paper, stage 2: -2 for a broken format)."""
    params: dict[str, Any] = field(default_factory=dict)
    """Keyword parameters of the part."""


@dataclass(frozen=True, slots=True)
class RewardBreakdown:
    """What a trajectory earned, by part."""

    parts: Mapping[str, float]

    @property
    def total(self) -> float:
        return sum(self.parts.values())


Recipe = Mapping[RewardedStage, tuple[Part, ...]]
"""Parts per stage. A recipe without one of the stages cannot train it."""

_SEARCH_R1 = (Part("search_r1_em"),)
_SEARCH_R1_FORMAT = (Part("search_r1_format"),)
_REFT = (Part("partial_credit"),)

RECIPES: Registry[Recipe] = Registry(
    "recipe",
    "r1searcher.recipes",
    {
        "paper": {
            "stage1": (Part("retrieval", 0.5), Part("format", 0.5)),
            "stage2": (Part("f1"), Part("format", 0.0, if_zero=-2.0)),
        },
        "released-llama": {
            "stage1": (Part("released_cover_em"), Part("released_retrieval", 0.5), Part("released_tags", 0.5)),
            "stage2": (Part("released_f1_llama"), Part("released_format_llama", 0.0, if_zero=-1.0)),
        },
        "released-qwen": {"stage2": (Part("released_f1_qwen"), Part("released_format_qwen", 0.0, if_zero=-2.0))},
        "released-qwen-fixed": {
            "stage2": (Part("released_f1_qwen"), Part("released_format_qwen_fixed", 0.0, if_zero=-2.0)),
        },
        "search-r1": {"stage1": _SEARCH_R1, "stage2": _SEARCH_R1},
        "search-r1-format": {"stage1": _SEARCH_R1_FORMAT, "stage2": _SEARCH_R1_FORMAT},
        "reft": {"stage1": _REFT, "stage2": _REFT},
    },
    Mapping,
)


def recipe_parts(recipe: str, stage: RewardedStage | None = None) -> tuple[Part, ...]:
    """The parts of a recipe in a stage; None takes its last one.

    Raises `InputError` for an unknown recipe, and for one without this stage.
    """
    stages = RECIPES.require(recipe, "reward.recipe")
    stage = stage or max(stages)
    if stage not in stages:
        raise InputError(f"reward.recipe = {recipe!r} has no {stage}: it is a reward of {' and '.join(stages)} only")
    return stages[stage]


def reward_parts(name: str, option: str = "--reward") -> tuple[Part, ...]:
    """What one name means: a recipe's last stage, "RECIPE:stage1" or "RECIPE:stage2", or a single part.

    Raises `InputError` for any other name, given with `option`.
    """
    recipe, colon, stage = name.partition(":")
    if recipe in RECIPES:
        if colon and stage not in get_args(RewardedStage):
            raise InputError(f"{option} {name[:100]}: {stage[:100]!r} is not a stage; give stage1 or stage2")
        return recipe_parts(recipe, cast(RewardedStage, stage) if colon else None)
    if name in PARTS:
        return (Part(name),)
    known = [*RECIPES, *PARTS]
    close = difflib.get_close_matches(name, known, 1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise InputError(
        f"{option} {name[:100]!r} is not a recipe or a reward part{hint}; choose one of {', '.join(known)}"
    )


def reward_function(
    parts: Sequence[Part], max_answer_words: int = MAX_ANSWER_WORDS, format_rules: tuple[str, ...] = ()
) -> Callable[[Trajectory], RewardBreakdown]:
    """The weighted sum of `parts`; longer answers than `max_answer_words` break the format, and so do broken
    `format_rules` of other packages.

    Raises `InputError` for an unknown part or rule, for a part named twice, and for parameters that it does not take.
    """
    judged_rules(format_rules)
    names = [part.name for part in parts]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"reward.parts: {name!r} is named twice: give it once, with one weight")
    values = [part_with(part.name, part.params) for part in parts]

    def reward(trajectory: Trajectory) -> RewardBreakdown:
        context = RewardContext(trajectory, max_answer_words, format_rules)
        return RewardBreakdown(
            {part.name: _earned(part, value(context)) for part, value in zip(parts, values, strict=True)}
        )

    return reward


def _earned(part: Part, value: float) -> float:
    return part.if_zero if part.if_zero is not None and value == 0 else part.weight * value
