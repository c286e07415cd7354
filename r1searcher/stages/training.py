"""The common part of training every stage."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from r1searcher.common.files import write_json
from r1searcher.common.terminal import SafeConsole
from r1searcher.config.settings import Settings, Stage
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import read_summary
from r1searcher.watch.tracking import tracked

TITLES: Mapping[Stage, str] = {
    "sft": "SFT",
    "stage1": "stage 1: learn to search",
    "stage2": "stage 2: learn to use what was found",
}


def run_folder(settings: Settings, default_name: str) -> RunFolder:
    return RunFolder(Path(settings.output) / (settings.name or default_name))


def train_once(
    stage: Stage, settings: Settings, run: RunFolder, console: SafeConsole, train: Callable[[], Mapping[str, Any]]
) -> dict[str, Any]:
    """The summary of a run. A finished run is not changed; otherwise `train` trains, and returns its part of the
    summary, which is written."""
    finished = read_summary(run)
    if finished is not None:
        console.print(f"{run.path} is finished; its model is in {run.model}")
        return finished
    started = time.monotonic()
    with tracked(run, settings, console):
        summary = {
            "stage": stage,
            **train(),
            "seconds": round(time.monotonic() - started, 1),
            "model": str(run.model),
            "seed": settings.seed,
        }
        write_json(run.summary, summary)
    return summary
