"""The engine as a child process: start, follow, stop, resume, and end all its processes.

The child is `bash launch.sh`, so the run folder shows exactly what ran.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from r1searcher.common.files import open_log, read_bytes, write_json
from r1searcher.common.records import read_record_if_there
from r1searcher.engine import environment
from r1searcher.engine.failures import explain
from r1searcher.engine.launch import is_sft
from r1searcher.engine.openrlhf.checkpoints import checkpoint_step, rewind
from r1searcher.engine.openrlhf.versions import require_training_packages
from r1searcher.errors import R1Error, RunStopped
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.processes import LAUNCH, processes_of
from r1searcher.runs.records import LaunchNote, StopDecision, finished_steps, read_ending

PATIENCE_TO_END = 20.0
"""Seconds that a driver has to end by itself before all processes of the launch are killed."""


def run_engine(
    run: RunFolder,
    tick: Callable[[], None] = lambda: None,
    notify: Callable[[str], None] = lambda sentence: None,
    interval: float = 0.5,
) -> StopDecision:
    """Run `launch.sh` to its end, resuming at the last checkpoint, with `tick` called every `interval` seconds.

    The first interrupt (SIGINT) asks the engine to save and end after the current step, the second stops it at
    once, as SIGTERM does; `KeyboardInterrupt` (or `SystemExit`) comes out of either. Raises `RunStopped` if the run
    stopped deliberately, `R1Error` with one sentence for every other failure.
    """
    require_training_packages()
    end_leftovers(run)
    resumed_at = rewind(run)
    with open_log(run.log, "ab") as log, _sigterm_exits():
        log_starts = log.tell()
        with _started(run, log) as child:
            interrupted = _follow(child, run, tick, notify, interval)
    tick()
    if interrupted:
        raise KeyboardInterrupt
    if child.returncode == 0:
        return read_ending(run) or StopDecision(reason="finished", step=finished_steps(run) or resumed_at)
    raise _failure(run, child.returncode, log_starts)


def end_leftovers(run: RunFolder) -> None:
    """Kill processes of an earlier launch of this run, if a kill -9 ended its launcher but not all of them."""
    note = read_record_if_there(
        run.launch_note, LaunchNote, "remove it once no process of an earlier launch of this run is left"
    )
    if note is not None:
        _kill_all(note.launch)


@contextlib.contextmanager
def _started(run: RunFolder, log: BinaryIO) -> Iterator["subprocess.Popen[bytes]"]:
    """The running child; all its processes have ended when the block is left."""
    launch = uuid.uuid4().hex
    write_json(run.launch_note, {"launch": launch})
    ray_folder = Path(tempfile.mkdtemp(prefix="r1s-", dir="/tmp"))  # sockets need a short path
    child = subprocess.Popen(
        ["bash", str(run.launch)],
        env={**os.environ, **_variables(launch, ray_folder)},
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield child
    finally:
        _end(child, launch)
        shutil.rmtree(ray_folder, ignore_errors=True)
        shutil.rmtree(run.path / "cache", ignore_errors=True)
        run.launch_note.unlink(missing_ok=True)


def _variables(launch: str, ray_folder: Path) -> Mapping[str, str]:
    return {LAUNCH: launch, environment.PARENT_PIPE: "1", environment.RAY_FOLDER: str(ray_folder)}


def _follow(
    child: "subprocess.Popen[bytes]",
    run: RunFolder,
    tick: Callable[[], None],
    notify: Callable[[str], None],
    interval: float,
) -> bool:
    """Wait for the child's end; returns whether it was interrupted once. A second interrupt is raised."""
    interrupted = False
    while child.poll() is None:
        try:
            tick()
            time.sleep(interval)
        except KeyboardInterrupt:
            if interrupted or is_sft(run):
                raise
            interrupted = True
            run.stop_request.touch()
            notify("saving and ending after the current step; interrupt again to stop at once")
    return interrupted


def _failure(run: RunFolder, returncode: int, log_starts: int) -> R1Error:
    """Why the child failed. `log_starts` is where its part of the log begins."""
    if run.stop_note.exists():
        note = read_bytes(run.stop_note, "the file").decode("utf-8", "replace").strip()
        return RunStopped(f"{note} (checkpoint of step {checkpoint_step(run)} kept)")
    with run.log.open("rb") as log:
        log.seek(log_starts)
        return R1Error(f"{explain(log.read().decode('utf-8', 'replace'), returncode)}; the whole log: {run.log}")


def _end(child: "subprocess.Popen[bytes]", launch: str) -> None:
    """Let the driver shut down Ray, then kill every remaining process of the launch."""
    if child.poll() is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(PATIENCE_TO_END)
    _kill_all(launch)
    child.wait()
    if child.stdin:
        child.stdin.close()


def _kill_all(launch: str) -> None:
    while pids := list(processes_of(launch)):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


@contextlib.contextmanager
def _sigterm_exits() -> Iterator[None]:
    """Turn SIGTERM into `SystemExit` inside the block, so that `finally` ends the engine's processes."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    try:
        before = signal.signal(signal.SIGTERM, leave)
    except ValueError:  # not the main thread: the main thread handles signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
