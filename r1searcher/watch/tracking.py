"""The trackers of a run: one process each, `python -m r1searcher.watch.tracking RUN NAME`, which reads the run's files.

So training never waits for a tracker and does not fail with it, and a key is needed only on the machine where the
command is started. The process ends when its standard input does.
"""

import os
import select
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from r1searcher.common.files import last_line, open_log, write_json
from r1searcher.common.last_resort import without_secrets
from r1searcher.common.records import Record, read_record_if_there
from r1searcher.common.section import flat
from r1searcher.common.terminal import SafeConsole, error_line
from r1searcher.config.settings import Settings
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import read_metrics, read_summary
from r1searcher.runs.resolved import read_run
from r1searcher.tracking.base import TrackedRun, Tracker

PATIENCE = 30.0
"""Seconds that a tracker has to send what is left when the stage ends."""

_INTERVAL = 1.0


class _Note(Record):
    """What a tracker's process remembers: the id of its run there, and the time of the last row that it sent."""

    id: str
    sent: float = 0.0


@contextmanager
def tracked(run: RunFolder, settings: Settings, console: SafeConsole, patience: float = PATIENCE) -> Iterator[None]:
    """Every tracker of the settings follows `run`, whose settings and manifest are written, until the block ends.

    A tracker that fails, or does not end in `patience` seconds, is one printed sentence.
    """
    with ExitStack() as open_:
        for name in settings.tracking.trackers:
            open_.enter_context(_followed(run, name, console, patience))
        yield


@contextmanager
def _followed(run: RunFolder, name: str, console: SafeConsole, patience: float) -> Iterator[None]:
    log = run.tracking / f"{name}.log"
    with open_log(log, "wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", __name__, str(run.path), name],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,  # an interrupt in the terminal is the run's
        )

    def report() -> None:
        if child.wait() > 0:
            last = last_line(log)[:300] or "it ended"
            console.print(f"tracking.{name}: {last}; the run does not need it (log: {log})", soft_wrap=True)

    reporter = threading.Thread(target=report, daemon=True)
    reporter.start()
    try:
        yield
    finally:
        assert child.stdin is not None
        child.stdin.close()
        reporter.join(patience)
        if reporter.is_alive():
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            reporter.join()
            console.print(f"tracking.{name}: it did not finish in {patience:g} s and was stopped", soft_wrap=True)


def follow(run: RunFolder, name: str) -> None:
    """Log every step that was not sent before, until standard input ends, and then the summary."""
    stage, settings = read_run(run)
    file = run.tracking / f"{name}.json"
    note = read_record_if_there(file, _Note, "remove it: the tracker starts another run then")
    note = note or _Note(id=uuid.uuid4().hex)
    write_json(file, note.model_dump())
    config = {"stage": stage, **settings.model_dump(mode="json", exclude_none=True)}
    tracker = settings.tracking.trackers[name].open(
        TrackedRun(id=note.id, name=_name(run, settings), folder=run.tracking, config=config)
    )
    ended, size = False, -1
    while not ended:
        ended = _input_ended(_INTERVAL)
        size_before, size = size, run.metrics.stat().st_size if run.metrics.exists() else 0
        if size != size_before:
            note = _send(tracker, run, note)
            write_json(file, note.model_dump())
    tracker.finish(flat(read_summary(run) or {}, separator="/"))


def _send(tracker: Tracker, run: RunFolder, note: _Note) -> _Note:
    """Rows are known by their time: steps after a checkpoint are trained again after a kill, with the same numbers."""
    rows = [row for row in read_metrics(run) if row["time"] > note.sent]
    for row in rows:
        tracker.log(int(row["step"]), {key: value for key, value in row.items() if key not in ("step", "time")})
    return note.model_copy(update={"sent": rows[-1]["time"]}) if rows else note


def _input_ended(seconds: float) -> bool:
    ready, _, _ = select.select([0], [], [], seconds)
    return bool(ready) and not os.read(0, 1)


def _name(run: RunFolder, settings: Settings) -> str:
    """The run's folder in `output`: "stage1", or "run/stage1" for a stage of `r1s run`."""
    folder, output = run.path.resolve(), Path(settings.output).resolve()
    return str(folder.relative_to(output)) if folder.is_relative_to(output) else folder.name


def main() -> int:
    try:
        follow(RunFolder(Path(sys.argv[1])), sys.argv[2])
    except Exception as error:  # whatever a tracker's library raises
        first = (str(error).strip().splitlines() or [""])[0]
        error_line(without_secrets(f"{type(error).__name__}: {first}"))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
