"""`r1s runs`: the runs in a folder, with their stage, state, step and last metrics. Reads only their files."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from r1searcher.common import terminal
from r1searcher.common.files import read_text
from r1searcher.common.records import read_record_if_there
from r1searcher.errors import InputError
from r1searcher.report.tables import print_whole
from r1searcher.rewards.measures import View, shown_in
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.processes import processes_of
from r1searcher.runs.records import LaunchNote, last_metrics, read_ending, read_summary
from r1searcher.runs.resolved import read_run

DEPTH = 5
"""Levels of folders that are searched for runs."""

LOSS = "loss_mean"
"""The engine's own name of the loss, the metric of an SFT."""


@dataclass(frozen=True, slots=True)
class RunStatus:
    """One run. `step` is the last finished one, `steps` the last one planned, None if the settings do not say.

    state: "finished", "running" (on this machine), "stopped" by a watch rule, "ended" (trained to its end, without a
        model yet), "interrupted", or "damaged". `detail` says why, in a clause.
    updated: when the last step was finished, in seconds since 1970.
    """

    folder: Path
    state: str
    detail: str = ""
    stage: str = ""
    step: int = 0
    steps: int | None = None
    updated: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "run": str(self.folder),
            "stage": self.stage,
            "state": self.state,
            "detail": self.detail,
            "step": self.step,
            "steps": self.steps,
            "updated": self.updated,
            "metrics": dict(self.metrics),
        }


def run_list(folder: Path, as_json: bool) -> None:
    """Print the runs in `folder`, the last updated one first. Raises `InputError` if there are none."""
    runs = sorted(map(status_of, run_folders(folder)), key=lambda run: run.updated or 0.0, reverse=True)
    if not runs:
        raise InputError(f"{folder} has no runs: give the folder that they are in")
    if as_json:
        for run in runs:
            terminal.json_line(run.as_json())
        return
    print_whole(terminal.console(), _table(runs))


def run_folders(folder: Path) -> Iterator[Path]:
    """The run folders in `folder`, or it alone if it is one. Links to folders are not followed."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give the one that the runs are in")
    for path, folders, files in os.walk(folder):
        here = Path(path)
        if {"manifest.json", "config.toml"} <= set(files):
            yield here
        if {"manifest.json", "config.toml"} <= set(files) or len(here.relative_to(folder).parts) >= DEPTH:
            folders.clear()
        folders.sort()


def status_of(folder: Path) -> RunStatus:
    """What the files of a run say. Never raises for a damaged one: it is a state."""
    run = RunFolder(folder)
    try:
        stage, settings = read_run(run)
        last = dict(last_metrics(run) or {})
        state, detail = _state(run)
    except InputError as error:
        return RunStatus(folder, "damaged", str(error))
    return RunStatus(
        folder,
        state,
        detail,
        stage,
        int(last.pop("step", 0)),
        settings.sft.steps if stage == "sft" else settings.rl.steps,
        last.pop("time", None),
        last,
    )


def _state(run: RunFolder) -> tuple[str, str]:
    ending = read_ending(run)
    why = " ".join(filter(None, (ending.reason, ending.detail))) if ending else ""
    if read_summary(run) is not None:
        return "finished", why
    launch = read_record_if_there(run.launch_note, LaunchNote, "remove it")
    if launch and any(processes_of(launch.launch)):
        return "running", ""
    if run.stop_note.exists():
        return "stopped", read_text(run.stop_note, "the file").strip()
    if ending:
        return "ended", f"{why}; the same command writes the model"
    return "interrupted", "the same command continues it" + (", unless it runs on another machine" if launch else "")


def _table(runs: Sequence[RunStatus]) -> Table:
    shown = [m for m in shown_in(View.LIVE) if any(m.name in run.metrics for run in runs)]
    loss = any(LOSS in run.metrics for run in runs)
    table = Table(box=None, padding=(0, 1))
    for heading in ("run", "stage", "state", "step", "ago"):
        table.add_column(heading, justify="left" if heading in ("run", "stage", "state") else "right")
    for heading in (*(m.heading for m in shown), *(["loss"] if loss else [])):
        table.add_column(heading, justify="right")
    table.add_column("")
    for run in runs:
        names = [*(m.name for m in shown), *([LOSS] if loss else [])]
        table.add_row(
            str(run.folder),
            run.stage,
            run.state,
            f"{run.step}/{run.steps}" if run.steps else str(run.step),
            _ago(run.updated),
            *(f"{run.metrics[name]:.3f}" if name in run.metrics else "" for name in names),
            run.detail,
        )
    return table


def _ago(then: float | None) -> str:
    """The time since then, in its largest unit.

    >>> _ago(None)
    ''
    """
    if then is None:
        return ""
    seconds = max(0.0, time.time() - then)
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
