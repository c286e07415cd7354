"""The table of measures, and that each entry keeps to its contract on every trajectory that the tests have."""

import gzip
import json
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest

from r1searcher.episodes.trajectory import Author, StopReason, Trajectory
from r1searcher.evaluation.predictions import from_text, read_predictions
from r1searcher.rewards.contract import check_measure
from r1searcher.rewards.format import judged_rules
from r1searcher.rewards.measures import (
    EPISODE_SECONDS,
    F1,
    MEASURES,
    QUERY_WORDS,
    SEARCHES,
    Measure,
    View,
    episode_logs,
    measure,
    shown_in,
)
from tests.shared_data import DATA

SEARCH = "I look. <|begin_of_query|> capital Norway <|end_of_query|>"
DRAW = random.Random(7)
RIGHT = "So Oslo. </think> <answer> Oslo </answer>"


@cache
def trajectories() -> tuple[Trajectory, ...]:
    return tuple(_trajectories())


def _trajectories() -> Iterator[Trajectory]:
    for file in sorted((DATA / "r1-searcher" / "eval_results").glob("*.jsonl")):
        for prediction in read_predictions(file):
            assert prediction.trajectory
            yield prediction.trajectory
    with gzip.open(DATA / "rewards" / "cases.jsonl.gz", "rt", encoding="utf-8", newline="\n") as lines:
        for line in lines:
            case = json.loads(line)
            yield from_text("question", tuple(case["gold_answers"]), case["text"])


def test_the_fixtures_hold_what_can_go_wrong() -> None:
    assert len(trajectories()) > 2_500
    assert any(not t.searches for t in trajectories())
    assert any(not t.turns or not t.turns[-1] for t in trajectories())
    assert len({t.stop for t in trajectories()}) >= 4


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_keeps_to_the_contract(name: str) -> None:
    check_measure(MEASURES[name], trajectories())


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        ({"compute": lambda context: math.nan}, "None, or finite"),
        ({"compute": lambda context: 2}, "0..1"),
        ({"compute": lambda context: -1}, "0..1"),
        ({"compute": lambda context: DRAW.random()}, "same every time"),
        ({"range": (1.0, 1.0)}, "two different ends"),
        ({"range": (0.0, 2.0), "shown": frozenset({View.INTERVAL})}, "interval plot"),
        ({"name": "format/x"}, "a Python name"),
        ({"aggregate": sum}, "aggregates equal values"),
    ],
)
def test_a_measure_that_breaks_a_rule_is_found(broken: dict[str, object], rule: str) -> None:
    good = Measure(name="good", label="good", meaning="always right", compute=lambda context: 1)
    check_measure(good, trajectories()[:3])
    with pytest.raises(AssertionError, match=rule):
        check_measure(replace(good, **broken), trajectories()[:3])  # type: ignore[arg-type]


def test_names_and_labels_occur_once() -> None:
    assert len({m.label for m in MEASURES.values()}) == len(MEASURES)
    for view in View:
        headings = [m.heading for m in shown_in(view)]
        assert len(set(headings)) == len(headings)
        assert headings


def test_every_episode_logs_the_same_keys(trajectory) -> None:
    """OpenRLHF averages what the episodes of a step log, and needs each key in all of them."""
    none, some = trajectory(RIGHT), trajectory(SEARCH, SEARCH, RIGHT)
    first, second = (episode_logs(t, {"f1": 1.0}, 2.5, max_answer_words=10) for t in (none, some))
    assert first.keys() == second.keys()
    assert first.keys() >= {f"format/{rule}" for rule in judged_rules(())} | {
        f"stop/{reason.value}" for reason in StopReason
    }
    assert (first[QUERY_WORDS.name], second[QUERY_WORDS.name]) == (0.0, 2.0)
    assert (second["reward/f1"], second[EPISODE_SECONDS.name], second[F1.name]) == (1.0, 2.5, 1.0)
    assert second["new_tokens"] == sum(len(s.token_ids) for s in some.segments if s.author is Author.MODEL)
    assert all(isinstance(value, float) for value in second.values())


def test_a_measure_that_does_not_apply_is_absent_and_not_zero(trajectory) -> None:
    assert QUERY_WORDS.name not in measure(trajectory(RIGHT))
    assert measure(trajectory(RIGHT))[SEARCHES.name] == 0
