"""One stage from its settings to its summary: prepare, train, evaluate, write down."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r1searcher.common import terminal
from r1searcher.common.files import lines_in, write_json
from r1searcher.common.terminal import SafeConsole
from r1searcher.config.settings import Settings, Stage
from r1searcher.config.source import SettingsSource
from r1searcher.engine.process import run_engine
from r1searcher.errors import InputError
from r1searcher.questions.named import open_dataset
from r1searcher.report.live import RunView
from r1searcher.report.plots import save_curves, terminal_curves
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import StopDecision, read_metrics, read_summary
from r1searcher.stages.held_out import evaluate_held_out
from r1searcher.stages.prepare import prepare_stage

TITLES: Mapping[Stage, str] = {
    "sft": "SFT",
    "stage1": "stage 1: learn to search",
    "stage2": "stage 2: learn to use what was found",
}


def run_stage(
    stage: Stage, source: SettingsSource, from_: Path | None = None, console: SafeConsole | None = None
) -> RunFolder:
    """Resolve the settings and train one RL stage; `from_` is the run whose model it starts from."""
    settings = source.load(stage, {"model.path": _model_of(from_)} if from_ else None)
    run = RunFolder(Path(settings.output) / (settings.name or stage))
    console = console or terminal.console(stderr=True)
    train_stage(stage, settings, run, console)
    evaluate_stage(settings, run, console)
    return run


def evaluate_stage(settings: Settings, run: RunFolder, console: SafeConsole) -> None:
    """The held-out questions of the settings, if there are any, on the model that the stage made."""
    if not (settings.data.held_out and settings.evaluation.questions):
        return
    data, wanted = settings.data, settings.evaluation.questions
    asked = len(open_dataset(data.held_out, data.folder, limit=wanted, strict=True).questions)
    metrics = evaluate_held_out(run, run.model, asked, console)
    write_json(run.summary, {**(read_summary(run) or {}), "held_out": metrics})
    shown = " · ".join(f"{key} {value:.3f}" for key, value in metrics.items() if isinstance(value, float))
    console.print(f"held out, sampled: {shown}", soft_wrap=True)


def _model_of(run: Path) -> str:
    """The model folder that a finished run made. Raises `InputError` where there is none."""
    folder = RunFolder(run)
    if read_summary(folder) is None:
        raise InputError(
            f"--from {run}: no finished run lies there (it has no {folder.summary.name}); finish it with the command "
            "that began it"
        )
    return str(folder.model)


def train_stage(stage: Stage, settings: Settings, run: RunFolder, console: SafeConsole) -> dict[str, Any]:
    """Train one RL stage in `run`, going on where an interrupted one stopped; returns its summary.

    A finished run is left as it is. Raises what `prepare_stage` and `run_engine` raise.
    """
    prepared = prepare_stage(stage, settings, run)
    finished = read_summary(run)
    if finished is not None:
        console.print(f"{run.path} is finished; its model is in {run.model}")
        return finished
    for note in prepared.warnings:
        console.print(note, soft_wrap=True)
    rl = settings.rl
    steps = lines_in(run.questions) // rl.questions_per_step
    started = time.monotonic()
    with RunView(run, TITLES[stage], steps, rl.questions_per_step * rl.samples_per_question, console) as view:
        if prepared.resuming:
            console.print("going on from the last checkpoint")
        ending = run_engine(run, view.refresh, console.print)
    rows = read_metrics(run)
    save_curves({TITLES[stage]: rows}, run.path / "curve.png", run.path.name)
    console.print(terminal_curves(rows))
    summary = {
        "stage": stage,
        "steps": len(rows),
        "ended": describe(ending),
        "last_step": rows[-1] if rows else {},
        "seconds": round(time.monotonic() - started, 1),
        "model": str(run.model),
        "seed": settings.seed,
    }
    write_json(run.summary, summary)
    console.print(
        f"{describe(ending)} · model {run.model} · curve {run.path / 'curve.png'} · trajectories "
        f"{run.trajectories(1).parent}",
        soft_wrap=True,
    )
    return summary


def describe(ending: StopDecision) -> str:
    detail = f" ({ending.detail})" if ending.detail else ""
    return f"{ending.reason} after step {ending.step}{detail}"
