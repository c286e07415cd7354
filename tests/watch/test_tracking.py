"""Trackers that follow a run: W&B and trackio themselves, W&B's server as far as its client needs one, and others."""

import base64
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from r1searcher.checks.base import StageInputs
from r1searcher.checks.runner import CHECKS
from r1searcher.common.files import write_json
from r1searcher.common.terminal import SafeConsole
from r1searcher.config.settings import load
from r1searcher.errors import InputError
from r1searcher.runs.folder import RunFolder
from r1searcher.stages.prepare import manifest_of, write_run_metadata
from r1searcher.watch.monitor import record
from r1searcher.watch.tracking import tracked
from tests import extension
from tests.common.servers import answer, raw_server
from tests.watch.trackers import KEY, TRACKERS_HERE, recorded, trackio_rows, wandb_server, without_key

ROWS = [{"reward": 0.25, "vllm_kl": 0.0}, {"reward": 0.5, "vllm_kl": 1e-4, "loss": float("nan")}]
SUMMARY = {"stage": "stage1", "model": "m", "held_out": {"f1": 0.5, "greedy": {"f1": 0.75}}}


def start(folder: Path, **tracking: Any) -> RunFolder:
    """A run with its settings, before its first step."""
    settings = load("stage1", overrides={"output": str(folder), "name": "mine", "tracking": tracking})
    run = RunFolder(folder / "mine")
    run.path.mkdir(parents=True)
    write_run_metadata(run, settings, manifest_of("stage1", settings))
    return run


@contextmanager
def follows(run: RunFolder, patience: float = 120) -> Iterator[StringIO]:
    """Follow the run; gives what is printed."""
    from r1searcher.runs.resolved import read_run

    printed = StringIO()
    with tracked(run, read_run(run)[1], SafeConsole(file=printed, width=1000), patience):
        yield printed


def train(run: RunFolder, *rows: Mapping[str, float], first: int = 1, finish: bool = True) -> None:
    for step, row in enumerate(rows, start=first):
        record(run, step, row)
    if finish:
        write_json(run.summary, SUMMARY)


@TRACKERS_HERE
@pytest.mark.training
def test_wandb_has_every_step_under_one_id_after_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    run = start(tmp_path, wandb={"mode": "offline", "project": "towns"})
    with follows(run) as printed:
        train(run, *ROWS, finish=False)
    run.metrics.write_text(run.metrics.read_text().splitlines(keepends=True)[0])  # a kill: back to the checkpoint
    with follows(run):
        train(run, {"reward": 0.75}, {"reward": 1.0}, first=2)
    assert without_key(tmp_path)
    assert printed.getvalue() == ""
    with wandb_server() as received:
        monkeypatch.setenv("WANDB_BASE_URL", received.address)
        sessions = sorted(map(str, run.tracking.glob("wandb/offline-run-*")))
        subprocess.run([sys.executable, "-m", "wandb", "sync", *sessions], cwd=tmp_path, check=True)
    assert received.lines("wandb-history.jsonl") == [
        {"step": 1, "reward": 0.25, "vllm_kl": 0},
        {"step": 2, "reward": 0.5, "vllm_kl": 1e-4},
        {"step": 2, "reward": 0.75},
        {"step": 3, "reward": 1.0},
    ]
    assert len(received.runs) == 1
    summary = received.lines("wandb-summary.json")[-1]
    assert (summary["held_out/f1"], summary["held_out/greedy/f1"]) == (0.5, 0.75)


@TRACKERS_HERE
@pytest.mark.training
def test_trackio_has_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    run = start(tmp_path / "runs", trackio={"project": "towns"})
    with follows(run) as printed:
        train(run, *ROWS, finish=False)
    with follows(run):
        train(run, {"reward": 1.0}, first=3)
    assert trackio_rows(tmp_path / "trackio", "towns") == [
        *recorded(run),
        {"step": 3, "held_out/f1": 0.5, "held_out/greedy/f1": 0.75},
    ]
    assert printed.getvalue() == ""


@TRACKERS_HERE
@pytest.mark.training
def test_the_key_goes_to_wandbs_server_and_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(tmp_path, wandb={"mode": "online"})
    with ExitStack() as open_:
        received = open_.enter_context(wandb_server())
        elsewhere = open_.enter_context(raw_server(answer(b"", "502 Bad Gateway")))
        monkeypatch.setenv("WANDB_BASE_URL", received.address)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, elsewhere.url)  # where requests to any other host are seen
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        CHECKS["tracking"].run(StageInputs("stage1", load("stage1", overrides={"tracking.wandb": True})))
        with follows(run) as printed:
            train(run, *ROWS)
            wait_for(lambda: (run.tracking / "wandb").is_dir())
            commands = command_lines()
    assert received.lines("wandb-history.jsonl") == recorded(run)
    sign_in = "Basic " + base64.b64encode(f"api:{KEY}".encode()).decode()
    assert sign_in in {credentials for _, credentials, _ in received.requests}
    assert not any(KEY.encode() in body for _, _, body in received.requests), "in its own header alone"
    assert not elsewhere.with_key(KEY)
    assert without_key(tmp_path)
    assert any("r1searcher.watch.tracking" in command for command in commands)
    assert not any(KEY in command for command in commands)
    assert printed.getvalue() == ""


def command_lines() -> list[str]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(file.read_bytes().decode("utf-8", "replace"))
        except OSError:
            continue
    return found


def wait_for(condition: Any, seconds: float = 600) -> None:
    """Until `condition` holds. `seconds` only keeps a test that would never end from hanging."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


@TRACKERS_HERE
@pytest.mark.training
def test_a_server_that_is_down_is_one_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(tmp_path, wandb={"mode": "online"})
    with wandb_server() as gone:
        pass  # nothing listens there anymore
    monkeypatch.setenv("WANDB_BASE_URL", gone.address)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with follows(run, patience=1) as printed:
        train(run, *ROWS)
    [said] = printed.getvalue().splitlines()
    assert said.startswith("tracking.wandb: ")
    assert [row["step"] for row in recorded(run)] == [1, 2]


BROKEN = """
import time
from r1searcher.tracking.base import TrackerSettings
class Settings(TrackerSettings):
    package = "json"
    fails: str
    def open(self, run):
        self.here("open")
        return Run(self)
    def here(self, where):
        if self.fails == where:
            raise OSError("the disk of the tracker is full")
        if self.fails == f"{where} hangs":
            time.sleep(3600)
class Run:
    def __init__(self, settings): self.settings = settings
    def log(self, step, metrics): self.settings.here("log")
    def finish(self, summary): self.settings.here("finish")
"""

FOLLOW = """
import sys
from pathlib import Path
from tests.watch.test_tracking import ROWS, follows, start, train
run = start(Path(sys.argv[1]), mine={"fails": sys.argv[2]})
with follows(run, patience=float(sys.argv[3])) as printed:
    train(run, *ROWS)
print(printed.getvalue(), end="")
"""


@pytest.mark.parametrize("place", ["open", "log", "finish"])
def test_a_tracker_that_fails_is_one_notice(tmp_path: Path, place: str) -> None:
    where = extension.install(
        tmp_path / "package", {"mine": BROKEN}, {"r1searcher.trackers": {"mine": "mine:Settings"}}
    )
    failing = extension.python(FOLLOW, where, [tmp_path / "a", place, 600])
    assert failing.stdout == (
        "tracking.mine: OSError: the disk of the tracker is full; the run does not need it "
        f"(log: {tmp_path / 'a' / 'mine' / 'tracking' / 'mine.log'})\n"
    )
    hanging = extension.python(FOLLOW, where, [tmp_path / "b", f"{place} hangs", 0.1])
    assert hanging.stdout == "tracking.mine: it did not finish in 0.1 s and was stopped\n"


KILLED = """
import sys, time
from pathlib import Path
from tests.watch.test_tracking import follows, start
with follows(start(Path(sys.argv[1]), mine={"fails": ""})):
    print("ready", flush=True)
    time.sleep(3600)
"""


def test_a_tracker_ends_with_the_command_that_is_killed(tmp_path: Path) -> None:
    where = extension.install(
        tmp_path / "package", {"mine": BROKEN}, {"r1searcher.trackers": {"mine": "mine:Settings"}}
    )
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "run")], env=extension.environment(where), stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    at_work = str(tmp_path / "run" / "mine") + "\0mine"
    assert any(at_work in command for command in command_lines())
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    wait_for(lambda: not any(at_work in command for command in command_lines()))


CHECK = """
from r1searcher.checks.base import StageInputs
from r1searcher.checks.runner import CHECKS
from r1searcher.config.settings import load
from r1searcher.errors import R1Error
import sys, tomllib
try:
    CHECKS["tracking"].run(StageInputs("sft", load("sft", overrides={"tracking": tomllib.loads(sys.argv[1])})))
except R1Error as error:
    print(error)
"""


def test_a_tracker_of_another_package_gets_what_a_run_records(tmp_path: Path) -> None:
    blocks = extension.blocks("Add a tracker")
    entry_points = tomllib.loads(blocks["my_tracker.toml"])["project"]["entry-points"]
    where = extension.install(tmp_path / "package", {"my_tracker": blocks["my_tracker.py"]}, entry_points)
    code = FOLLOW.replace('mine={"fails": sys.argv[2]}', 'lines={"file": sys.argv[2]}')
    assert extension.finished(extension.python(code, where, [tmp_path / "runs", tmp_path / "lines.txt", 600])) == ""
    assert (tmp_path / "lines.txt").read_text().splitlines() == [
        "mine",
        '1 {"reward": 0.25, "vllm_kl": 0.0}',
        '2 {"reward": 0.5, "vllm_kl": 0.0001}',
        "held_out/f1 0.5",
    ]
    assert extension.python(CHECK, where, ["lines = {file = 'x'}"]).stdout == ""
    wrong = extension.python(CHECK, where, ["lines = {fiel = 'x'}\nline = true"]).stdout
    assert "tracking.lines.fiel = 'x': did you mean tracking.lines.file?" in wrong
    assert "tracking.line = True: there is no tracker 'line' (did you mean 'lines'?)" in wrong


def test_a_missing_package_is_found_before_a_run(tmp_path: Path) -> None:
    source = BROKEN.replace('"json"', '"no_such_package"')
    where = extension.install(tmp_path, {"mine": source}, {"r1searcher.trackers": {"mine": "mine:Settings"}})
    assert extension.python(CHECK, where, ["mine = {fails = ''}"]).stdout == (
        "tracking.mine: the package no_such_package is not installed: run `pip install no_such_package`, or set "
        "tracking.mine = false\n"
    )
    assert extension.python(CHECK, where, ["mine = false"]).stdout == ""


@TRACKERS_HERE
@pytest.mark.training
def test_a_missing_key_is_found_before_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    netrc = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(netrc))

    def check(**wandb: Any) -> None:
        CHECKS["tracking"].run(StageInputs("sft", load("sft", overrides={"tracking.wandb": wandb})))

    with pytest.raises(
        InputError, match=r"tracking\.wandb: there is no API key: set the environment variable WANDB_API_KEY"
    ):
        check()
    check(mode="offline")
    netrc.write_text(f"machine api.wandb.ai login user password {KEY}\n")
    netrc.chmod(0o600)
    check()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    with pytest.raises(InputError, match="there is no API key"):
        check()


def test_a_key_in_the_settings_is_refused_and_not_shown() -> None:
    with pytest.raises(InputError) as refused:
        load("stage1", overrides={"tracking.wandb.api_key": KEY})
    said = "tracking.wandb.api_key: there is no such setting; keys and passwords come from environment variables"
    assert str(refused.value).splitlines()[1:] == [f"  {said}"]
