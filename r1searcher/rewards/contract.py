"""Contract of measures, reward parts and recipes, for your own tests:

    check_measure(MEASURE, trajectories)     # trajectories of your tests, or those of a run (runs.records.from_row)
    check_reward_part(short_answer, trajectories)
    check_recipe(RECIPE, trajectories)

Each raises `AssertionError` with the rule that was broken.
"""

import copy
import inspect
import math
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from r1searcher.common.contract import rule
from r1searcher.episodes.trajectory import Trajectory
from r1searcher.rewards.measures import Measure, View
from r1searcher.rewards.parts import RewardContext, RewardPart
from r1searcher.rewards.recipes import Recipe, RewardedStage, reward_function


def check_measure(measure: Measure, trajectories: Iterable[Trajectory]) -> None:
    """Raises `AssertionError` for the first rule that the measure breaks: on its own, or on a trajectory.

    On each trajectory it has a finite number in its range, the same one every time, or None where it does not apply.
    """
    low, high = measure.range
    rule(measure.name.isidentifier(), f"the name {measure.name!r} is a Python name")
    rule(low < high, f"the range of {measure.name} has two different ends, the lower one first")
    share = View.INTERVAL not in measure.shown or measure.range == (0.0, 1.0)
    rule(share, f"{measure.name} is shown in the interval plot, so its range is 0 to 1")
    inside = next(value for value in (high, low + 1, 1.0) if math.isfinite(value))
    rule(measure.aggregate([inside] * 2) == inside, f"{measure.name} aggregates equal values to the same value")
    if measure.compute is None:
        return
    for trajectory in trajectories:
        value = measure.compute(RewardContext(trajectory))
        fits = value is None or (math.isfinite(value) and low <= value <= high)
        rule(fits, f"{measure.name} = {value} is None, or finite and in {low:g}..{high:g}: {trajectory.question!r}")
        rule(value == measure.compute(RewardContext(trajectory)), f"{measure.name} is the same every time")


def check_reward_part(
    part: RewardPart, trajectories: Iterable[Trajectory], params: Mapping[str, Any] | None = None
) -> None:
    """Raises `AssertionError` for the first rule that the part breaks with these parameters.

    It has a docstring, for the docs. On each trajectory it returns a finite number, the same one every time, and
    changes nothing.
    """
    given = dict(params or {})
    name = getattr(part, "__name__", type(part).__name__)
    rule(inspect.getdoc(part), f"{name} has a docstring that says what it returns")
    for trajectory in trajectories:
        before = copy.deepcopy(trajectory)
        value = part(RewardContext(trajectory), **given)
        rule(isinstance(value, (int, float)) and math.isfinite(value), f"{name} = {value!r} is a finite number")
        rule(value == part(RewardContext(trajectory), **given), f"{name} is the same every time")
        rule(trajectory == before, f"{name} does not change the trajectory")


def check_recipe(recipe: Recipe, trajectories: Iterable[Trajectory]) -> None:
    """Raises `AssertionError` for the first rule that the recipe breaks, and `InputError` for parts that do not exist.

    It has a stage, only the known ones, and a finite reward on each trajectory.
    """
    rule(recipe, "the recipe has a stage")
    rule(set(recipe) <= set(get_args(RewardedStage)), f"the stages are stage1 and stage2, not {', '.join(recipe)}")
    rewards = [reward_function(parts) for parts in recipe.values()]
    for trajectory in trajectories:
        for reward in rewards:
            rule(math.isfinite(reward(trajectory).total), "the reward is a finite number")
