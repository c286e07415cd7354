"""What every measure must keep to, as a test of your own:

    check_measure(MEASURE, trajectories)     # trajectories of your tests, or those of a run (runs.records.from_row)

It raises `AssertionError` with the rule that was broken.
"""

import math
from collections.abc import Iterable

from r1searcher.episodes.trajectory import Trajectory
from r1searcher.rewards.measures import Measure, View
from r1searcher.rewards.parts import RewardContext


def check_measure(measure: Measure, trajectories: Iterable[Trajectory]) -> None:
    """Raises `AssertionError` for the first rule that the measure breaks: on its own, or on a trajectory.

    On each trajectory it has a finite number in its range, the same one every time, or None where it does not apply.
    """
    low, high = measure.range
    _rule(measure.name.isidentifier(), f"the name {measure.name!r} is a Python name")
    _rule(low < high, f"the range of {measure.name} has two different ends, the lower one first")
    share = View.INTERVAL not in measure.shown or measure.range == (0.0, 1.0)
    _rule(share, f"{measure.name} is shown in the interval plot, so its range is 0 to 1")
    inside = next(value for value in (high, low + 1, 1.0) if math.isfinite(value))
    _rule(measure.aggregate([inside] * 2) == inside, f"{measure.name} aggregates equal values to the same value")
    if measure.compute is None:
        return
    for trajectory in trajectories:
        value = measure.compute(RewardContext(trajectory))
        fits = value is None or (math.isfinite(value) and low <= value <= high)
        _rule(fits, f"{measure.name} = {value} is None, or finite and in {low:g}..{high:g}: {trajectory.question!r}")
        _rule(value == measure.compute(RewardContext(trajectory)), f"{measure.name} is the same every time")


def _rule(kept: object, rule: str) -> None:
    if not kept:
        raise AssertionError(rule)
