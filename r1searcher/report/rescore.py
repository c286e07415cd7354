"""`r1s rescore`: a run's stored episodes with another reward, and what that would change.

Groups are the samples of one question in one step: most algorithms learn from the differences inside them alone.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean

from rich.table import Table

from r1searcher.common import terminal
from r1searcher.common.records import as_record
from r1searcher.errors import InputError
from r1searcher.report.tables import print_whole
from r1searcher.rewards.format import answer_of_trajectory
from r1searcher.rewards.recipes import Part, reward_function, reward_parts
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import Str, TrajectoryRow, trajectory_of, trajectory_rows
from r1searcher.runs.resolved import read_run

EQUAL = 1e-9
"""Rewards that differ by less are equal."""


class RewardedRow(TrajectoryRow):
    """A training episode with the id of its question and what it earned."""

    id: Str
    reward: float


@dataclass(frozen=True, slots=True)
class Rescored:
    """An episode with the reward that it earned and the one that it would earn, by part."""

    step: int
    id: str
    question: str
    gold_answers: tuple[str, ...]
    answer: str | None
    stop: str
    before: float
    after: float
    parts: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Change:
    """What another reward changes in some episodes. `flat_before` and `flat_after` are the shares of groups with equal
    rewards, from which nothing is learned; `reversed` is the share of pairs inside a group whose order is reversed."""

    episodes: int
    before: float
    after: float
    changed: float
    flat_before: float
    flat_after: float
    reversed: float


@dataclass(frozen=True, kw_only=True)
class RescoreRequest:
    """The arguments of `r1s rescore`. `recipe` is a recipe, RECIPE:stage1, or a reward part."""

    run: Path
    recipe: str
    steps: Sequence[int] = ()
    examples: int = 5
    as_json: bool = False


def run_rescore(request: RescoreRequest) -> None:
    """Print the change of every step and the episodes whose reward changes most. Raises `InputError`."""
    episodes = rescored(request)
    by_step: dict[int, list[Rescored]] = defaultdict(list)
    for episode in episodes:
        by_step[episode.step].append(episode)
    changes = {str(step): change_of(group) for step, group in sorted(by_step.items())}
    if len(changes) > 1:
        changes["all"] = change_of(episodes)
    most = sorted(episodes, key=lambda one: -abs(one.after - one.before))[: request.examples]
    examples = [one for one in most if abs(one.after - one.before) > EQUAL]
    if request.as_json:
        steps = {step: asdict(change) for step, change in changes.items()}
        rows = [asdict(one) for one in examples]
        terminal.json_line({"recipe": request.recipe, "steps": steps, "examples": rows})
    else:
        _print(changes, examples)


def rescored(request: RescoreRequest) -> list[Rescored]:
    """The training episodes of a run with both rewards. The rules of the format are those of the run's settings."""
    run = RunFolder(request.run)
    stage, settings = read_run(run)
    recorded = run.recorded_steps()
    if not recorded:
        raise InputError(f"{run.path} has no trajectories to score: give a run of stage1 or stage2")
    if missing := set(request.steps) - {step for step, _ in recorded}:
        raise InputError(f"{run.path} has no trajectories of step {min(missing)}: leave out --step to score all")
    reward = reward_function(
        _parts(request.recipe, stage), settings.reward.max_answer_words, settings.reward.format_rules
    )
    found = []
    for step, folder in recorded:
        if request.steps and step not in request.steps:
            continue
        for row in trajectory_rows(folder):
            checked = as_record(row, RewardedRow, f"{folder}: a row")
            trajectory = trajectory_of(checked)
            earned = reward(trajectory)
            found.append(
                Rescored(
                    step,
                    checked.id,
                    trajectory.question,
                    trajectory.gold_answers,
                    answer_of_trajectory(trajectory),
                    trajectory.stop.value,
                    checked.reward,
                    earned.total,
                    dict(earned.parts),
                )
            )
    return found


def _parts(name: str, stage: str) -> tuple[Part, ...]:
    """What the name means, in the run's own stage if the recipe has it. Raises `InputError` for an unknown name."""
    try:
        return reward_parts(f"{name}:{stage}", "--recipe")
    except InputError:
        return reward_parts(name, "--recipe")


def change_of(episodes: Sequence[Rescored]) -> Change:
    """The change over some episodes, at least one."""
    groups: dict[tuple[int, str], list[Rescored]] = defaultdict(list)
    for episode in episodes:
        groups[episode.step, episode.id].append(episode)
    pairs = [(a, b) for group in groups.values() for a, b in combinations(group, 2)]
    opposite = [(a.before - b.before > EQUAL) and (b.after - a.after > EQUAL) for a, b in _both_ways(pairs)]
    return Change(
        episodes=len(episodes),
        before=fmean(one.before for one in episodes),
        after=fmean(one.after for one in episodes),
        changed=fmean(abs(one.after - one.before) > EQUAL for one in episodes),
        flat_before=fmean(_flat([one.before for one in group]) for group in groups.values()),
        flat_after=fmean(_flat([one.after for one in group]) for group in groups.values()),
        reversed=sum(opposite) / len(pairs) if pairs else 0.0,
    )


def _both_ways(pairs: Sequence[tuple[Rescored, Rescored]]) -> list[tuple[Rescored, Rescored]]:
    return [*pairs, *((b, a) for a, b in pairs)]


def _flat(rewards: Sequence[float]) -> bool:
    return max(rewards) - min(rewards) <= EQUAL


def _print(changes: Mapping[str, Change], examples: Sequence[Rescored]) -> None:
    table = Table(box=None, padding=(0, 1))
    headings = ("step", "episodes", "reward", "would be", "changed", "flat groups", "would be", "pairs reversed")
    for heading in headings:
        table.add_column(heading, justify="right")
    for step, c in changes.items():
        table.add_row(
            step,
            f"{c.episodes:,}",
            *(f"{value:.3f}" for value in (c.before, c.after)),
            *(f"{value:.0%}" for value in (c.changed, c.flat_before, c.flat_after, c.reversed)),
        )
    screen = terminal.console()
    print_whole(screen, table)
    for one in examples:
        parts = ", ".join(f"{name} {value:g}" for name, value in one.parts.items())
        screen.print(f"{one.before:.2f} would be {one.after:.2f} ({parts}) in step {one.step}", soft_wrap=True)
        gold = " | ".join(one.gold_answers)
        screen.print(
            f"    {one.question} gold: {gold}, answered: {one.answer}, {one.stop}", style="dim", soft_wrap=True
        )
