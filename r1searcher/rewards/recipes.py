"""Named rewards, and rewards composed of parts in a stage's TOML.

    [reward]
    recipe = "paper"

or

    [[reward.parts]]
    name = "f1"
    [[reward.parts]]
    name = "format"
    weight = 0
    broken = -2

A part earns `weight x value`; where `if_zero` is given, it earns that instead when its value is 0.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from r1searcher.config.settings import Part as PartSettings
from r1searcher.config.settings import Reward as RewardSettings
from r1searcher.episodes.trajectory import Trajectory
from r1searcher.errors import InputError
from r1searcher.rewards.parts import PARTS, RewardContext

RewardedStage = Literal["stage1", "stage2"]


@dataclass(frozen=True, slots=True)
class Part:
    """One summand: `weight` times the value of the part named `name`, or `if_zero` where that value is 0."""

    name: str
    weight: float = 1.0
    if_zero: float | None = None

    def earns(self, context: RewardContext) -> float:
        value = PARTS[self.name](context)
        return self.if_zero if self.if_zero is not None and value == 0 else self.weight * value


@dataclass(frozen=True, slots=True)
class Reward:
    """What a trajectory earned, by part."""

    parts: Mapping[str, float]

    @property
    def total(self) -> float:
        return sum(self.parts.values())


RECIPES: dict[str, Mapping[RewardedStage, tuple[Part, ...]]] = {
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
    "search-r1": {"stage1": (Part("search_r1_em"),), "stage2": (Part("search_r1_em"),)},
    "search-r1-format": {"stage1": (Part("search_r1_format"),), "stage2": (Part("search_r1_format"),)},
    "reft": {"stage1": (Part("partial_credit"),), "stage2": (Part("partial_credit"),)},
}
"""Recipe to stage to parts. `docs/rewards.md` holds the table; `released-qwen*` train on stage 2 alone."""


def reward_function(settings: RewardSettings, stage: RewardedStage) -> Callable[[Trajectory], Reward]:
    """The reward of a stage, as `[reward]` sets it: of its `parts` where there are any, else of its `recipe`.

    Raises `InputError` for an unknown recipe or part, a recipe without this stage, or a part named twice.
    """
    chosen = _composed(settings.parts) if settings.parts else _of_recipe(settings.recipe, stage)

    def reward(trajectory: Trajectory) -> Reward:
        context = RewardContext(trajectory, settings.max_answer_words)
        return Reward({part.name: part.earns(context) for part in chosen})

    return reward


def _of_recipe(recipe: str, stage: RewardedStage) -> tuple[Part, ...]:
    if recipe not in RECIPES:
        raise InputError(f"reward.recipe = {recipe!r} is not known{_nearest(recipe, RECIPES)}: choose {_any(RECIPES)}")
    if stage not in RECIPES[recipe]:
        raise InputError(f"reward.recipe = {recipe!r} has no {stage}: it trains on stage 2 alone (r1s stage2)")
    return RECIPES[recipe][stage]


def _composed(parts: Sequence[PartSettings]) -> tuple[Part, ...]:
    names = [part.name for part in parts]
    for name in names:
        if name not in PARTS:
            raise InputError(f"reward.parts: {name!r} is not known{_nearest(name, PARTS)}: choose {_any(PARTS)}")
        if names.count(name) > 1:
            raise InputError(f"reward.parts: {name!r} is named twice: give it once, with one weight")
    return tuple(Part(part.name, part.weight, part.if_zero) for part in parts)


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _any(known: Mapping[str, Any]) -> str:
    return ", ".join(known)
