"""The contents of a run folder's files: one model per file, and trajectories to and from JSON rows.

A file that does not match its model is an `InputError` with the file, the location in it and the fix.
"""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from r1searcher.common.files import append_row, last_row, read_rows
from r1searcher.common.records import (
    Record,
    as_record,
    checked_rows,
    problem_in,
    read_record_if_there,
    read_records,
)
from r1searcher.config.settings import Stage
from r1searcher.corpora.passage import Passage
from r1searcher.episodes.protocol import PROTOCOLS
from r1searcher.episodes.protocols.r1_searcher import R1_SEARCHER
from r1searcher.episodes.trajectory import Author, Search, Segment, StopReason, Trajectory
from r1searcher.errors import InputError
from r1searcher.retrieval.base import Hit, Span
from r1searcher.runs.folder import RunFolder


def one_of(kinds: tuple[type, ...], said: str) -> AfterValidator:
    """Accepts instances of `kinds` unchanged; the error for others is "must be" and `said`."""

    def check(value: Any) -> Any:
        if not isinstance(value, kinds):
            raise PydanticCustomError("kind", "must be {said}", {"said": said})
        return value

    return AfterValidator(check)


Str = Annotated[Any, one_of((str,), "text")]
"""Any string: pydantic's own type rejects lone surrogates, which a model can write."""

Count = Annotated[int, Field(ge=0)]


class SegmentRow(Record):
    author: Annotated[Author, Field(strict=False)]
    text: Str
    token_ids: list[int]
    logprobs: list[float] | None = None
    overhang: Count = 0


class HitRow(Record):
    id: Str
    title: Str
    text: Str
    score: float


class SpanRow(Record):
    link: Str
    seconds: float
    cost_usd: float = 0.0
    cached: bool = False


class SearchRow(Record):
    query: Str
    shown: Count
    seconds: float
    spans: list[SpanRow] = Field(default_factory=list)
    hits: list[HitRow]


class TrajectoryRow(Record):
    """One episode."""

    question: Str
    gold_answers: list[Str]
    stop: Annotated[StopReason, Field(strict=False)]
    segments: list[SegmentRow]
    searches: list[SearchRow]
    parts: dict[Str, float] = Field(default_factory=dict)
    seconds: float | None = None
    protocol: Str = R1_SEARCHER.name

    @field_validator("protocol")
    @classmethod
    def known_protocol(cls, value: str) -> str:
        if value not in PROTOCOLS:
            raise PydanticCustomError(
                "protocol", "must be an installed protocol: {names}", {"names": ", ".join(PROTOCOLS)}
            )
        return value


class RunManifest(Record):
    """`manifest.json`: the stage, and what identifies the run."""

    stage: Stage
    settings_sha256: Str


class MetricRow(Record):
    """A row of `metrics.jsonl`: the step, and a number or null per measured value."""

    step: Annotated[int, Field(ge=0, le=10**9)]

    @model_validator(mode="after")
    def numbers(self) -> "MetricRow":
        for key, value in (self.model_extra or {}).items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
                raise ValueError(f"{key} must be a number or null")
        return self

    def figures(self) -> dict[str, float]:
        """What was measured and is finite, without the step."""
        return {key: float(value) for key, value in (self.model_extra or {}).items() if value is not None}


class Heartbeat(Record):
    time: float
    message: Str


class Summary(Record):
    """`summary.json` of a finished run."""

    stage: Stage
    model: Str


class LaunchNote(Record):
    """`launch.json`: the mark that identifies the processes of the current launch."""

    launch: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class StopDecision(Record):
    """`ending.json`: why the training loop ended. `step` is the last trained one."""

    reason: Str
    """"finished", "asked", or what a watch rule says, such as "thresholds reached"."""

    step: Count
    detail: Str = ""


class EpisodeLabel(Record):
    """What the engine passes to the executor with a prompt: the label of its row in `questions.jsonl`.

    `step` and `epoch` (a pass over the questions) count from 1 and follow from the row's position in that file, known
    before training. If rollouts run ahead of training, or questions are dropped and replaced (asynchronous training,
    dynamic filtering), an episode may be trained in another step than its label's: the label says with which step it
    was planned and is recorded.
    """

    id: Str
    question: Str
    gold_answers: list[Str]
    step: Annotated[int, Field(ge=1)]
    epoch: Annotated[int, Field(ge=1)]
    split: Literal["train", "eval"] = "train"
    """"eval": an episode of the engine's own evaluation, which is never trained and does not have a step."""


REMEDY = "restore the file from a copy, or remove the run's folder and train again"


def read_manifest(run: RunFolder) -> RunManifest | None:
    """The run's manifest; None if none was written. Raises `InputError` if it is damaged."""
    return read_record_if_there(run.manifest, RunManifest, REMEDY)


def read_summary(run: RunFolder) -> dict[str, Any] | None:
    """The summary of a finished run, or None. Raises `InputError` if it is damaged."""
    remedy = f"remove it and run the same command to write it again; {run.path}"
    summary = read_record_if_there(run.summary, Summary, remedy)
    return summary.model_dump() if summary else None


def read_metrics(run: RunFolder) -> list[dict[str, float]]:
    """One mapping per step: `step`, and every measured number; values that were not finite are missing.

    Raises `InputError` for a damaged row.
    """
    return [{"step": row.step, **row.figures()} for row in read_records(run.metrics, MetricRow)]


def finished_steps(run: RunFolder) -> int:
    """The number of steps in `metrics.jsonl`; the current step is one more. Raises `InputError`."""
    last = last_metrics(run)
    return int(last["step"]) if last else 0


def last_metrics(run: RunFolder) -> dict[str, float] | None:
    """The last mapping of `read_metrics`, without reading the others."""
    last = last_row(run.metrics)
    if last is None:
        return None
    row = as_record(last, MetricRow, f"the last line of {run.metrics}")
    return {"step": row.step, **row.figures()}


def add_heartbeat(run: RunFolder, writer: str, message: str) -> None:
    """Write a notice of a waiting run into the file of this process, `writer`."""
    append_row(run.heartbeats / f"{writer}.jsonl", {"time": time.time(), "message": message})


def read_heartbeats(run: RunFolder) -> list[Heartbeat]:
    """The notices of a waiting run, oldest first. Damaged rows are skipped: a notice must not end a run."""
    beats = []
    for file in run.heartbeats.glob("*.jsonl"):
        try:
            for row in read_rows(file):
                beats.append(Heartbeat.model_validate(row))
        except (InputError, ValidationError):
            continue
    return sorted(beats, key=lambda beat: beat.time)


def read_ending(run: RunFolder) -> StopDecision | None:
    """Why the training loop ended before its last step, or None. Raises `InputError` if the file is damaged."""
    return read_record_if_there(run.ending, StopDecision, "remove it")


def trajectory_files(folder: Path) -> list[Path]:
    """The files of a folder of trajectories, one per writing process, in name order."""
    return sorted(folder.glob("*.jsonl"))


def trajectory_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of a folder of trajectories (`RunFolder.trajectories(step)`), checked; empty if there are none.

    Those of one process are in the order in which its episodes ended. Raises `InputError` for a damaged row.
    """
    for file in trajectory_files(folder):
        yield from checked_rows(file, TrajectoryRow)


def latest_trajectory(run: RunFolder, step: int) -> dict[str, Any] | None:
    """The row of the last episode of a step, for display; None if there is none or it is damaged."""
    try:
        newest = max(trajectory_files(run.trajectories(step)), key=lambda file: file.stat().st_mtime_ns, default=None)
        row = last_row(newest) if newest else None
        return row if row and TrajectoryRow.model_validate(row) else None
    except (InputError, ValidationError):
        return None


def to_row(trajectory: Trajectory, **more: Any) -> dict[str, Any]:
    """The complete record of an episode; `more` (reward parts, step, seconds) comes first."""
    return {
        **more,
        "question": trajectory.question,
        "gold_answers": list(trajectory.gold_answers),
        "protocol": trajectory.protocol,
        "stop": trajectory.stop.value,
        "segments": [
            {
                "author": segment.author.value,
                "text": segment.text,
                "token_ids": list(segment.token_ids),
                **({"logprobs": list(segment.logprobs)} if segment.logprobs is not None else {}),
                **({"overhang": segment.overhang} if segment.overhang else {}),
            }
            for segment in trajectory.segments
        ],
        "searches": [
            {
                "query": search.query,
                "shown": search.shown,
                "seconds": round(search.seconds, 6),
                "spans": [_span_row(span) for span in search.spans],
                "hits": [
                    {"id": h.passage.id, "title": h.passage.title, "text": h.passage.text, "score": h.score}
                    for h in search.hits
                ],
            }
            for search in trajectory.searches
        ],
    }


def _span_row(span: Span) -> dict[str, Any]:
    """A span without what is at its default."""
    row: dict[str, Any] = {"link": span.link, "seconds": round(span.seconds, 6)}
    if span.cost_usd:
        row["cost_usd"] = span.cost_usd
    return {**row, "cached": True} if span.cached else row


def from_row(row: Mapping[str, Any]) -> Trajectory:
    """The trajectory that `to_row` wrote. Raises `ValueError` with the location in the row that does not match."""
    try:
        return trajectory_of(TrajectoryRow.model_validate(row))
    except ValidationError as error:
        raise ValueError(problem_in(error)) from None


def trajectory_of(checked: TrajectoryRow) -> Trajectory:
    """The trajectory of a validated row."""
    return Trajectory(
        question=checked.question,
        gold_answers=tuple(checked.gold_answers),
        segments=tuple(
            Segment(
                s.author,
                s.text,
                tuple(s.token_ids),
                tuple(s.logprobs) if s.logprobs is not None else None,
                s.overhang,
            )
            for s in checked.segments
        ),
        searches=tuple(
            Search(
                s.query,
                tuple(Hit(Passage(h.id, h.title, h.text), h.score) for h in s.hits),
                s.shown,
                s.seconds,
                tuple(Span(x.link, x.seconds, x.cost_usd, x.cached) for x in s.spans),
            )
            for s in checked.searches
        ),
        stop=StopReason(checked.stop),
        protocol=checked.protocol,
    )
