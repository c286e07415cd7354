"""Rules on how training goes: silent on healthy rows, and each says what is wrong within its window plus two steps."""

import json
import random
from pathlib import Path

import pytest

from r1searcher.config.settings import Settings
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import read_heartbeats
from r1searcher.watch import health
from r1searcher.watch.health import WINDOW
from r1searcher.watch.monitor import StepMonitor
from r1searcher.watch.rules import RULES
from tests.shared_data import DATA

Row = dict[str, float]
NAMES = [name for name in RULES if getattr(health, name, None) is RULES[name]]
SUDDEN = 12
"""The step from which something is wrong."""


def healthy(step: int, rng: random.Random) -> Row:
    """A step of a stage that learns, with the noise of 64 episodes."""
    learned = min(1.0, 0.3 + 0.08 * step)
    noise = rng.gauss(0, 0.06)
    return {
        "step": step,
        "reward": learned + noise,
        "retrieval": min(1.0, learned + abs(noise)),
        "stop/answered": 0.95 - abs(noise),
        "stop/turn_truncated": 0.02,
        "stop/context_full": 0.0,
        "stop/search_limit": 0.03,
        "stop/malformed_query": 0.05,
        "stop/forged_documents": 0.0,
        "answer_in_documents": 0.7 + noise,
        "group_reward_std": 0.2,
        "format/garbled_text": 0.0,
        "format/stuck_text": 0.01,
        "format/foreign_script": 0.0,
        "new_tokens": 60 + 10 * learned,
        "actor_grad_norm": 1.0 + abs(noise),
        "search_seconds": 0.05,
    }


WRONG: dict[str, Row] = {
    "reward_falling": {"reward": 0.0},
    "searches_falling": {"retrieval": 0.1},
    "answers_falling": {"stop/answered": 0.1},
    "documents_falling": {"answer_in_documents": 0.0},
    "never_searches": {"retrieval": 0.0},
    "nothing_to_learn": {"group_reward_std": 0.0},
    "episodes_unfinished": {"stop/context_full": 0.9},
    "search_limit": {"stop/search_limit": 0.9},
    "malformed_turns": {"stop/forged_documents": 0.6},
    "unreadable_text": {"format/foreign_script": 0.6},
    "length_growing": {"new_tokens": 500.0},
    "not_finite": {"policy_loss": float("nan")},
    "gradient_jump": {"actor_grad_norm": 30.0},
    "retriever_slow": {"search_seconds": 5.0},
}


def run(seed: int, steps: int = 20, wrong: Row | None = None) -> list[Row]:
    rng = random.Random(seed)
    rows = [healthy(step, rng) for step in range(1, steps + 1)]
    return [{**row, **(wrong or {})} if row["step"] >= SUDDEN else row for row in rows]


def first_alarms(rows: list[Row]) -> dict[str, int]:
    """Rule -> the first step at which it says something."""
    found: dict[str, int] = {}
    for end in range(1, len(rows) + 1):
        for name in NAMES:
            if name not in found and RULES[name](rows[:end], Settings()) is not None:
                found[name] = end
    return found


def test_every_rule_has_a_case() -> None:
    assert set(NAMES) == set(WRONG)
    assert WINDOW <= 5


@pytest.mark.parametrize("name", WRONG)
def test_a_rule_says_what_is_wrong_within_its_window_and_two_steps(name: str) -> None:
    for seed in range(10):
        step = first_alarms(run(seed, wrong=WRONG[name])).get(name)
        assert step is not None
        assert SUDDEN <= step < SUDDEN + WINDOW + 2


def test_healthy_rows_are_silent() -> None:
    for seed in range(100, 200):
        assert first_alarms(run(seed, steps=40)) == {}, seed


@pytest.mark.parametrize("file", sorted((DATA / "metrics").glob("*.jsonl")), ids=lambda file: file.stem)
def test_the_metrics_of_real_runs_are_silent(file: Path) -> None:
    """Stages of the demo, and 60 steps on questions of HotpotQA and 2WikiMultihopQA with eight questions per step."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(rows) >= 2
    assert first_alarms(rows) == {}


def test_a_value_that_is_missing_once_silences_no_rule() -> None:
    """`metrics.jsonl` has null for a number that was not finite."""
    for name in WRONG:
        rows = run(3, wrong=WRONG[name])
        rows[5] = {"step": 6}
        step = first_alarms(rows).get(name)
        assert step is not None
        assert SUDDEN <= step < SUDDEN + WINDOW + 2


def test_metrics_that_are_not_reported_are_no_alarm() -> None:
    assert first_alarms([{"step": step} for step in range(1, 10)]) == {}


def test_a_notice_is_shown_when_it_begins_and_when_it_ends(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    watched = StepMonitor(folder, Settings(), {"never_searches": RULES["never_searches"]})
    for step, share in enumerate((0, 0, 0, 0, 0.5, 0.5, 0, 0, 0), start=1):
        watched.step(step, {"retrieval": share})
    messages = [beat.message for beat in read_heartbeats(folder)]
    assert [message.split(":")[0] for message in messages] == ["step 3", "step 5", "step 9"]
    assert "a reward for searching is never earned" in messages[0]
    assert messages[1] == "step 5: never_searches is over"
