"""The SFT: supervised traces that show a model the protocol's shape (ReFT's first phase, arXiv 2401.08967)."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ValidationError
from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

from r1searcher.common import terminal
from r1searcher.common.files import append_row, lines_in, parse_json, read_text, sha256_of, split_lines, write_json
from r1searcher.common.terminal import SafeConsole, error_line, label
from r1searcher.config.settings import Settings
from r1searcher.config.source import SettingsSource
from r1searcher.engine.launch import prepare_sft
from r1searcher.engine.openrlhf.versions import require_tested_versions, require_training_packages
from r1searcher.engine.process import run_engine
from r1searcher.engine.reserved_tokens import assign_tag_tokens
from r1searcher.engine.topology import device_of
from r1searcher.episodes.trajectory import Author
from r1searcher.errors import InputError
from r1searcher.models.demo import model_folder
from r1searcher.questions.rows import check_characters
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import finished_steps, last_metrics, read_summary
from r1searcher.runs.resolved import protocol_of
from r1searcher.stages.prepare import Checks, check_resumable, manifest_of, require_setting, write_run_metadata
from r1searcher.stages.stage import TITLES

Row = dict[str, str]


def run_sft(source: SettingsSource) -> RunFolder:
    """Resolve the settings and train."""
    settings = source.load("sft")
    run = RunFolder(Path(settings.output) / (settings.name or "sft"))
    train_sft(settings, run, terminal.console(stderr=True))
    return run


def train_sft(settings: Settings, run: RunFolder, console: SafeConsole) -> dict[str, Any]:
    """Train on the traces in `run` with OpenRLHF's SFT trainer; returns the summary. A finished run is left alone."""
    checks = Checks()
    rows: list[Row] = []
    with checks.each():
        require_training_packages()
    with checks.each():
        require_tested_versions(device_of(settings))
    with checks.each():
        protocol_of(settings)
    with checks.each():
        require_setting("model.path", settings.model.path, "a Hugging Face folder or name")
    with checks.each():
        require_setting("data.traces", settings.data.traces, "a JSONL of traces")
        rows = list(read_traces(Path(settings.data.traces)))
        if len(rows) < settings.sft.batch_size:
            raise InputError(
                f"data.traces: {len(rows)} segments to learn don't fill one update of sft.batch_size = "
                f"{settings.sft.batch_size}"
            )
    checks.end()
    manifest = {**manifest_of("sft", settings), "traces_sha256": sha256_of(Path(settings.data.traces))}
    if not check_resumable(run, manifest):
        wanted = (settings.sft.steps or len(rows) // settings.sft.batch_size) * settings.sft.batch_size
        run.questions.unlink(missing_ok=True)
        for number in range(wanted):
            append_row(run.questions, rows[number % len(rows)])
        prepare_sft(settings, run, _start_of(settings, run), settings.episode.max_context)
        write_run_metadata(run, settings, manifest)
    finished = read_summary(run)
    if finished is not None:
        console.print(f"{run.path} is finished; its model is in {run.model}")
        return finished
    console.print(f"{TITLES['sft']} · {len(rows)} segments · files in {run.path}")
    started = time.monotonic()
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

        ending = run_engine(run, follow)
    summary = {
        "stage": "sft",
        "rows": len(rows),
        "ended": ending.reason,
        "seconds": round(time.monotonic() - started, 1),
        "model": str(run.model),
        "seed": settings.seed,
    }
    write_json(run.summary, summary)
    return summary


def _start_of(settings: Settings, run: RunFolder) -> Path:
    """The model folder that is trained: as given, or a copy whose reserved tokens spell the protocol's tags."""
    model = Path(model_folder(settings.model.path, error_line))
    if not settings.model.reserved_tokens:
        return model
    start = run.path / "start"
    assign_tag_tokens(model, start, protocol_of(settings).reserved_tags)
    return start


class _Trace(BaseModel):
    """A row of a traces file as it comes in."""

    segments: list[tuple[Author, Annotated[str, AfterValidator(check_characters)]]]


def read_traces(file: Path) -> Iterator[Row]:
    """One row per segment that the model should write: everything before it as `input`, the segment as `output`.

    So a document is never an output and never trained. Rows stay in the order of the traces, whose author mixes them.
    Raises `InputError` for a file that cannot be read and for the first line that is not a trace.
    """
    for number, line in enumerate(split_lines(read_text(file, "data.traces: the file")), start=1):
        if not line.strip():
            continue
        try:
            trace = _Trace.model_validate(parse_json(line))
        except ValueError as error:  # pydantic's is one too
            reason = f" ({error})" if not isinstance(error, ValidationError) else ""
            raise InputError(
                f"data.traces: {file}:{number} is not a trace{reason}; a row is "
                '{"segments": [["prompt", "…"], ["model", "…"], ["environment", "…"], …]}'
            ) from None
        before = ""
        for author, text in trace.segments:
            if author is Author.MODEL:
                yield {"input": before, "output": text}
            before += text
