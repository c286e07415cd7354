"""The records of a training run for its report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r1searcher.common.files import lines_in, read_text
from r1searcher.errors import InputError
from r1searcher.report.contents import Records
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import (
    read_ending,
    read_heartbeats,
    read_manifest,
    read_metrics,
    trajectory_files,
    trajectory_rows,
)
from r1searcher.runs.resolved import read_run

MOST = 10_000
"""Trajectories in a report whose steps were not chosen."""

MOST_NOTES = 50
"""Notices of a run in its report."""


def records_of_run(run: RunFolder, steps: Sequence[int] = ()) -> Records:
    """The metrics of all steps, and the trajectories of `steps`; without any, of all steps, or of as many at equal
    distances as have about `MOST` trajectories, the first and the last one among them.

    Steps that were sampled ahead of training and not trained are chosen only if `steps` names them, or if no step was.

    Raises `InputError` for a damaged file, and if no step or one of `steps` was not recorded.
    """
    stage, settings = read_run(run)
    recorded = dict(run.recorded_steps())
    if not recorded:
        raise InputError(
            f"{run.path} has no trajectories to report: "
            + ("SFT runs no episodes" if stage == "sft" else "no step was recorded yet")
        )
    if missing := [step for step in steps if step not in recorded]:
        raise InputError(f"{run.path} has no trajectories of step {missing[0]}: it has {_spans(list(recorded))}")
    metrics = read_metrics(run)
    trained = [step for step in recorded if metrics and step <= metrics[-1]["step"]] or list(recorded)
    chosen = sorted(set(steps or _spread(trained, recorded)))
    manifest = read_manifest(run)
    return Records(
        title=str(run.path),
        manifest=manifest.model_dump() if manifest else {},
        trajectories=[row for step in chosen for row in _rows(step, recorded[step])],
        grouped_by="step",
        metrics=metrics,
        max_answer_words=settings.reward.max_answer_words,
        format_rules=settings.reward.format_rules,
        notes=_notes(run, chosen, list(recorded)),
    )


def _rows(step: int, folder: Path) -> list[dict[str, Any]]:
    """The rows of a step, the samples of a question one after the other, without what the report does not show."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in trajectory_rows(folder):
        for segment in row["segments"]:
            segment.pop("logprobs", None)
        rows.setdefault(str(row.get("id", row["question"])), []).append({**row, "step": step})
    return [row for samples in rows.values() for row in samples]


def _spread(steps: Sequence[int], folders: Mapping[int, Path]) -> list[int]:
    """Steps at equal distances, as many as have about `MOST` trajectories, the first and the last one among them."""
    total = sum(lines_in(file) for step in steps for file in trajectory_files(folders[step]))
    kept = min(len(steps), max(2, len(steps) * MOST // max(total, 1)))
    last = len(steps) - 1
    return [steps[round(number * last / max(kept - 1, 1))] for number in range(kept)]


def _notes(run: RunFolder, chosen: Sequence[int], recorded: Sequence[int]) -> list[str]:
    """Which steps are shown, why the run ended or was stopped, and what it gave notice of."""
    notes = [] if len(chosen) == len(recorded) else [f"trajectories of {len(chosen)} of {len(recorded)} steps"]
    if ending := read_ending(run):
        notes.append(f"ended after step {ending.step}: {' '.join(filter(None, (ending.reason, ending.detail)))}")
    if run.stop_note.exists():
        notes.append(f"stopped: {read_text(run.stop_note, 'the file').strip()}")
    beats = [beat.message for beat in read_heartbeats(run)]
    return notes + beats[:MOST_NOTES] + ([f"{len(beats) - MOST_NOTES} more notices"] if beats[MOST_NOTES:] else [])


def _spans(steps: Sequence[int]) -> str:
    """A short description of steps.

    >>> _spans([1, 2, 3, 7])
    'steps 1 to 3, 7'
    """
    spans: list[list[int]] = []
    for step in steps:
        if spans and step == spans[-1][-1] + 1:
            spans[-1].append(step)
        else:
            spans.append([step])
    return "steps " + ", ".join(f"{s[0]} to {s[-1]}" if len(s) > 1 else str(s[0]) for s in spans)
