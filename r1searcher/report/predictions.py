"""Predictions: one answer to one question, and the row fields that identify it and say how it was judged."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from r1searcher.episodes.trajectory import Trajectory
from r1searcher.rewards.format import answer_of_trajectory
from r1searcher.runs.records import from_row

JUDGE_KEYS = ("judge", "gpt4o_output")
DATASET_KEYS = ("dataset", "data_source")


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer to one question.

    `answer` is raw, with the spaces between it and its tags; None if none was given. `judge` is a judge's verdict, None
    if there is none; `judge_failed` means that a judge was asked and gave none. `key` identifies the question, so that
    several samples of it belong together. `trajectory` is set if the row has one. `dataset` is the source of the
    question, from the row, or from the file's name if that begins with a known dataset's; "" otherwise.
    """

    key: str
    question: str
    gold_answers: tuple[str, ...]
    answer: str | None
    trajectory: Trajectory | None = None
    judge: bool | None = None
    judge_failed: bool = False
    dataset: str = ""


def of_episode(row: Mapping[str, Any], default_key: str) -> Prediction:
    """The prediction in a row of a run's or an evaluation's trajectories. Raises `ValueError` for any other row."""
    return of_trajectory(from_row(row), row, default_key)


def of_trajectory(
    trajectory: Trajectory, row: Mapping[str, Any], default_key: str, default_dataset: str = ""
) -> Prediction:
    """The prediction of a trajectory that was read from `row`."""
    judge, failed = verdict_of(row)
    return Prediction(
        key_of(row, default_key),
        trajectory.question,
        trajectory.gold_answers,
        answer_of_trajectory(trajectory),
        trajectory,
        judge,
        failed,
        dataset_of(row, default_dataset),
    )


def key_of(row: Mapping[str, Any], default: str) -> str:
    """What identifies the question of a row: its dataset with its index or id."""
    name = row.get("index", row.get("id"))
    return default if name is None else f"{row.get('dataset', '')}/{name}"


def dataset_of(row: Mapping[str, Any], default: str = "") -> str:
    return next((name for key in DATASET_KEYS if isinstance(name := row.get(key), str) and name), default)


def verdict_of(row: Mapping[str, Any]) -> tuple[bool | None, bool]:
    """A judge's verdict, and whether a judge failed: anything except a clear yes or no is a failure, never a no."""
    given = [row[key] for key in JUDGE_KEYS if key in row]
    if not given:
        return None, False
    said = str(given[0]).strip().lower()
    return {"true": (True, False), "false": (False, False)}.get(said, (None, True))
