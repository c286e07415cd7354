"""One reinforcement learning stage: prepare, train, evaluate."""

from pathlib import Path
from typing import Any

from r1searcher.common import terminal
from r1searcher.common.files import lines_in, write_json
from r1searcher.common.terminal import SafeConsole
from r1searcher.config.settings import Settings, Stage
from r1searcher.config.source import SettingsSource
from r1searcher.engine.process import run_engine
from r1searcher.errors import InputError
from r1searcher.report.live import RunView
from r1searcher.report.plots import StageCurve, save_curves, terminal_curves
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import StopDecision, read_metrics, read_summary
from r1searcher.stages.held_out import evaluate_held_out
from r1searcher.stages.prepare import Prepared, prepare_stage
from r1searcher.stages.training import TITLES, run_folder, train_once
from r1searcher.watch.tracking import tracked


def run_stage(
    stage: Stage, source: SettingsSource, from_: Path | None = None, console: SafeConsole | None = None
) -> RunFolder:
    """Resolve the settings and train one RL stage; `from_` is the run whose model it starts from."""
    settings = source.load(stage, {"model.path": _model_of(from_)} if from_ else None)
    run = run_folder(settings, stage)
    console = console or terminal.console(stderr=True)
    train_stage(stage, settings, run, console)
    evaluate_stage(settings, run, console)
    return run


def _model_of(run: Path) -> str:
    """The model folder of a finished run. Raises `InputError` if the run is not finished."""
    folder = RunFolder(run)
    if read_summary(folder) is None:
        raise InputError(
            f"--from {run}: this is not the folder of a finished run (it has no {folder.summary.name}); finish the run "
            "with the command that started it"
        )
    return str(folder.model)


def train_stage(stage: Stage, settings: Settings, run: RunFolder, console: SafeConsole) -> dict[str, Any]:
    """Train one RL stage in `run`, or resume it after an interruption; returns its summary. A finished run is not
    changed.

    Raises what `prepare_stage` and `run_engine` raise.
    """
    prepared = prepare_stage(stage, settings, run)
    return train_once(stage, prepared.settings, run, console, lambda: _train(stage, run, prepared, console))


def _train(stage: Stage, run: RunFolder, prepared: Prepared, console: SafeConsole) -> dict[str, Any]:
    for note in (*prepared.derived, *prepared.warnings):
        console.print(note, soft_wrap=True)
    settings = prepared.settings
    steps = lines_in(run.questions) // settings.rl.questions_per_step
    with RunView(run, TITLES[stage], steps, settings.rl.rollouts, console) as view:
        if prepared.resuming:
            console.print("resuming from the last checkpoint")
        ended = describe(run_engine(run, view.refresh, console.print))
    rows = read_metrics(run)
    ahead = [step for step, _ in run.recorded_steps() if rows and step > rows[-1]["step"]]
    if settings.engine.async_steps and ahead:
        console.print(f"sampled ahead and not trained: the rollouts of {len(ahead)} steps, from step {ahead[0]}")
    curve = run.path / "curve.png"
    save_curves({"": [StageCurve(name=TITLES[stage], rows=rows)]}, curve, run.path.name)
    console.print(terminal_curves(rows))
    console.print(
        f"{ended} · model {run.model} · curve {curve} · trajectories {run.trajectories(1).parent}", soft_wrap=True
    )
    return {"steps": len(rows), "ended": ended, "last_step": rows[-1] if rows else {}}


def evaluate_stage(settings: Settings, run: RunFolder, console: SafeConsole) -> None:
    """Evaluate the stage's model on the held-out questions of the settings, if there are any."""
    questions = settings.evaluation.questions
    if not (settings.data.held_out and questions):
        return
    metrics = evaluate_held_out(run, run.model, questions, console)
    summary = read_summary(run) or {}
    if summary.get("held_out") != metrics:
        with tracked(run, settings, console):
            write_json(run.summary, {**summary, "held_out": metrics})
    shown = " · ".join(f"{key} {value:.3f}" for key, value in metrics.items() if isinstance(value, float))
    console.print(f"held out, sampled: {shown}", soft_wrap=True)


def describe(ending: StopDecision) -> str:
    detail = f" ({ending.detail})" if ending.detail else ""
    return f"{ending.reason} after step {ending.step}{detail}"
