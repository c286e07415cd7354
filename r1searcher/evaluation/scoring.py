"""A file of predictions, scored; a large one by several processes."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from r1searcher.episodes.trajectory import Trajectory
from r1searcher.evaluation.predictions import named_dataset, parse, prediction_lines, read_predictions
from r1searcher.report.predictions import Prediction
from r1searcher.report.scoring import Scored, score_prediction
from r1searcher.rewards.measures import REWARD
from r1searcher.rewards.recipes import RewardBreakdown, reward_function, reward_parts

LARGE = 20_000_000
"""Bytes from which on a file is scored by several processes."""


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How the rows of a file are scored. `dataset` is the dataset of rows that do not name one.
    `reward` is a recipe or a reward part that is computed too; see `rewards.recipes.reward_parts`."""

    dataset: str = ""
    reward: str = ""

    def function(self) -> Callable[[Prediction], Scored]:
        """Raises `InputError` for an unknown reward."""
        reward = reward_function(reward_parts(self.reward)) if self.reward else None

        def score(prediction: Prediction) -> Scored:
            scored = score_prediction(prediction, self.dataset)
            return scored if reward is None else _rewarded(scored, prediction.trajectory, reward)

        return score


PLAIN = Scoring()


def _rewarded(scored: Scored, trajectory: Trajectory | None, reward: Callable[[Trajectory], RewardBreakdown]) -> Scored:
    if trajectory is None:
        return scored
    earned = reward(trajectory)
    parts = {f"{REWARD.name}/{name}": value for name, value in earned.parts.items()}
    return replace(scored, measures={**scored.measures, REWARD.name: earned.total, **parts})


def score_file(file: Path, processes: int = 1, scoring: Scoring = PLAIN) -> list[Scored]:
    """Scores of a predictions file in its order; a large one by several processes.

    Raises `InputError` for a file that cannot be read or is empty, and for an unknown reward.
    """
    score = scoring.function()
    if processes == 1 or not file.is_file() or file.stat().st_size < LARGE:
        return [score(prediction) for prediction in read_predictions(file)]
    with ProcessPoolExecutor(processes) as pool:
        return [scored for chunk in pool.map(_score_lines, _chunks(file, scoring)) for scored in chunk]


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Lines of a file with their numbers, for one process."""

    file: Path
    scoring: Scoring
    lines: list[tuple[int, str]]


def _chunks(file: Path, scoring: Scoring, size: int = 2_000) -> Iterator[_Chunk]:
    lines = prediction_lines(file)
    while chunk := list(islice(lines, size)):
        yield _Chunk(file, scoring, chunk)


def _score_lines(chunk: _Chunk) -> list[Scored]:
    named, score = named_dataset(chunk.file), chunk.scoring.function()
    return [score(parse(line, f"{chunk.file}:{number}", str(number), named)) for number, line in chunk.lines]
