"""What comes next in the demo, and how long it will take: measured on the parts before it, on this machine."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from r1searcher.common.files import write_json
from r1searcher.common.records import Record, read_record_if_there
from r1searcher.config.settings import Settings, Stage
from r1searcher.report.tables import SECONDS

HELD_OUT = " held out"
"""What follows the name of a part in the name of its evaluation."""


class Laps(Record):
    """`seconds.json`: seconds per part."""

    __pydantic_extra__: dict[str, float]


class Stopwatch:
    """Seconds of each part, kept in a file, so that the total of an interrupted demo is right."""

    def __init__(self, file: Path) -> None:
        self._file = file
        laps = read_record_if_there(file, Laps, "remove it: only the times of an earlier start are lost")
        self.parts: dict[str, float] = dict(laps.model_extra or {}) if laps else {}
        self._started = time.monotonic()

    def lap(self, part: str) -> None:
        now = time.monotonic()
        self.parts[part] = round(self.parts.get(part, 0.0) + now - self._started, 1)
        self._started = now
        write_json(self._file, self.parts)

    @property
    def total(self) -> float:
        return round(sum(self.parts.values()), 1)


def next_line(stage: Stage, settings: Settings, seconds: float | None) -> str:
    """What a part does, and about how long it takes; `seconds` is None if that is not known."""
    questions = settings.evaluation.questions
    if stage == "sft":
        work = f"{settings.sft.steps} updates of {settings.sft.batch_size} traces"
    else:
        at_most = "at most " if settings.stop.thresholds else ""
        work = f"{at_most}{settings.rl.steps} steps of {settings.rl.rollouts} episodes"
    known = "time left is shown after the first of them"
    if seconds is not None:
        known = f"about {max(1, round(seconds / 60))} min"
    return f"{work}, then {questions} held-out questions twice: {known}"


def expected_seconds(
    settings: Settings, laps: Mapping[str, float], before: Mapping[str, Sequence[Mapping[str, float]]]
) -> float | None:
    """The longest that an RL stage and its held-out questions take. None if no stage was measured.

    `laps` are the seconds of the parts so far, `before` the metric rows of the RL stages among them, by their part. A
    stage takes its steps and the start of the engine, which is what is left of the seconds of a part.
    """
    measured = {part: [row[SECONDS] for row in rows if SECONDS in row] for part, rows in before.items()}
    measured = {part: steps for part, steps in measured.items() if steps and part in laps}
    evaluations = [seconds for part, seconds in laps.items() if part.endswith(HELD_OUT)]
    if not measured or not evaluations or settings.rl.steps is None:
        return None
    part, steps = list(measured.items())[-1]
    start = max(0.0, laps[part] - sum(steps))
    return start + settings.rl.steps * fmean(steps) + fmean(evaluations)
