"""Supervised fine-tuning on traces, before reinforcement learning (ReFT's first phase, arXiv 2401.08967)."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

from r1searcher.checks.base import StageInputs
from r1searcher.checks.runner import require_checks
from r1searcher.common import terminal
from r1searcher.common.files import lines_in, sha256_of, write_rows
from r1searcher.common.terminal import SafeConsole, error_line, label
from r1searcher.config.settings import Settings
from r1searcher.config.source import SettingsSource
from r1searcher.engine.launch import prepare_sft, write_sft_launch
from r1searcher.engine.process import run_engine
from r1searcher.engine.reserved_tokens import assign_tag_tokens
from r1searcher.episodes.tokens import load_tokenizer
from r1searcher.models.demo import model_folder
from r1searcher.models.folder import local_model
from r1searcher.planning.derive import complete
from r1searcher.questions.exchange import ExchangeMaker
from r1searcher.questions.traces import Exchange, Trace
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import finished_steps, last_metrics
from r1searcher.runs.resolved import protocol_of
from r1searcher.stages.prepare import check_resumable, manifest_of, write_run_metadata
from r1searcher.stages.training import TITLES, run_folder, train_once


def run_sft(source: SettingsSource) -> RunFolder:
    """Resolve the settings and train."""
    settings = source.load("sft")
    run = run_folder(settings, "sft")
    train_sft(settings, run, terminal.console(stderr=True))
    return run


def train_sft(settings: Settings, run: RunFolder, console: SafeConsole) -> dict[str, Any]:
    """Train on the traces in `run` with OpenRLHF's SFT trainer; returns the summary. A finished run is not changed.

    Raises `InputError` with every problem found, and what `run_engine` raises.
    """
    derived = complete(settings, "sft")
    settings = derived.settings
    inputs = StageInputs("sft", settings)
    require_checks(inputs)
    _prepare(inputs, run, derived.reasons)

    def train() -> dict[str, Any]:
        console.print(f"{TITLES['sft']} · {len(inputs.traces)} traces · files in {run.path}")
        for reason in derived.reasons:
            console.print(reason, soft_wrap=True)
        return {"traces": len(inputs.traces), "ended": _run(settings, run, console)}

    return train_once("sft", settings, run, console, train)


def _prepare(inputs: StageInputs, run: RunFolder, reasons: Sequence[str]) -> None:
    """Write the run folder, or resume its run."""
    settings = inputs.settings
    manifest = {**manifest_of("sft", settings, reasons), "traces_sha256": sha256_of(Path(settings.data.traces))}
    if check_resumable(run, settings, manifest):
        model = _copy(run) if settings.model.reserved_tokens else start_model(settings, run)
        write_sft_launch(settings, run, local_model(str(model), settings.model.trust_remote_code))
        write_run_metadata(run, settings, None)
        return
    model = start_model(settings, run)
    write_rows(run.questions, ({"segments": trace} for trace in _repeated(_rendered(inputs, model), settings)))
    prepare_sft(settings, run, model)
    write_run_metadata(run, settings, manifest)


def _rendered(inputs: StageInputs, model: Path) -> list[Trace]:
    """The traces, with prompts and responses in the form that the model reads and writes."""
    if not any(isinstance(trace, Exchange) for trace in inputs.traces):
        return [trace for trace in inputs.traces if not isinstance(trace, Exchange)]
    settings = inputs.settings
    tokenizer = load_tokenizer(model, settings.model.trust_remote_code)
    render = ExchangeMaker(tokenizer, settings.model.chat_template, protocol_of(settings))
    return [render(trace) if isinstance(trace, Exchange) else trace for trace in inputs.traces]


def _repeated(traces: Sequence[Trace], settings: Settings) -> list[Trace]:
    """As many traces as the updates take: in order, repeated from the first one if there are too few."""
    size = settings.sft.batch_size
    updates = settings.sft.steps or len(traces) // size
    return [traces[number % len(traces)] for number in range(updates * size)]


def _run(settings: Settings, run: RunFolder, console: SafeConsole) -> str:
    """Train with a progress bar; returns why training ended."""
    updates = lines_in(run.questions) // settings.sft.batch_size
    finished_steps(run)  # damaged metrics are reported before anything is started
    columns = (
        label("SFT"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        label("{task.fields[loss]}"),
    )
    with terminal.progress(*columns, console=console) as progress:
        task = progress.add_task("SFT", total=updates, loss="")

        def follow() -> None:
            if row := last_metrics(run):
                progress.update(task, completed=row["step"], loss=f"loss {row.get('loss_mean', float('nan')):.2f}")

        return str(run_engine(run, follow).reason)


def start_model(settings: Settings, run: RunFolder) -> Path:
    """The model folder that is trained: as given, or a copy whose reserved tokens spell the protocol's tags."""
    model = Path(model_folder(settings.model.path, error_line))
    if not settings.model.reserved_tokens:
        return model
    # In a process of its own, since this one waits for the training and torch would stay in its memory.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        process.submit(assign_tag_tokens, model, _copy(run), protocol_of(settings).reserved_tags).result()
    return _copy(run)


def _copy(run: RunFolder) -> Path:
    return run.path / "start"
