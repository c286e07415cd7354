"""Every way a command can end gives one sentence and an exit code; a traceback goes to a file, without secrets."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from r1searcher.common import last_resort
from r1searcher.errors import FileError, InputError, ServiceError

CHILD = """
import sys
from r1searcher.common import last_resort
def work():
    {body}
    return 0
sys.exit(last_resort.run(work))
"""


class PanicException(BaseException):
    """What pyo3 raises after a Rust panic."""


def child(body: str, cache: Path, redirect: str = "", **env: str) -> subprocess.CompletedProcess[bytes]:
    """`body` as a command in its own process, under a shell that may redirect it."""
    command = f'"$0" -c "$1" {redirect}'
    return subprocess.run(
        ["bash", "-c", command, sys.executable, CHILD.format(body=body)],
        capture_output=True,
        env={**os.environ, "R1S_CACHE": str(cache), **env},
        timeout=120,
    )


def recursion() -> int:
    return recursion() + 1


@pytest.mark.parametrize(
    "error",
    [
        IndexError("list index out of range"),
        PanicException("index out of bounds"),
        MemoryError(),
        AssertionError("a\nb"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_bug_is_one_line_with_the_file_of_its_traceback(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("R1S_CACHE", str(tmp_path / "cache"))

    def work() -> int:
        raise error

    assert last_resort.run(work) == 70
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "this is a bug in r1s" in said
    assert type(error).__name__ in said
    assert "issue tracker" in said
    (file,) = (tmp_path / "cache" / "crashes").iterdir()
    assert str(file) in said
    assert "Traceback" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_endless_recursion_is_a_bug_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("R1S_CACHE", str(tmp_path))
    assert last_resort.run(recursion) == 70
    assert "RecursionError" in capsys.readouterr().err


def test_nothing_secret_is_in_the_traceback_or_the_line(tmp_path: Path) -> None:
    secrets = {"R1S_API_KEY": "sk-1234secret", "MY_TOKEN": "tok\n'en", "DB_PASSWORD": "hunter22"}
    body = (
        "import os; e = os.environ; raise ValueError(e['R1S_API_KEY'], repr(e['MY_TOKEN']), e['DB_PASSWORD'],"
        " 'https://me:pass-word@host/v1', 'Bearer abc.def', e['R1S_API_KEY'].encode())"
    )
    done = child(body, tmp_path / "cache", **secrets)
    assert done.returncode == 70
    (file,) = (tmp_path / "cache" / "crashes").iterdir()
    for text in (done.stderr.decode(), file.read_text()):
        for secret in ("sk-1234secret", "tok\n'en", "tok\\n", "hunter22", "pass-word", "abc.def"):
            assert secret not in text
        assert "[R1S_API_KEY]" in text
    assert done.stderr.count(b"\n") == 1


def test_where_no_traceback_can_be_written_the_line_says_so(tmp_path: Path) -> None:
    done = child("raise ValueError('x')", Path("/dev/null/cache"), TMPDIR="/dev/null")
    assert done.returncode == 70
    assert b"traceback" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("a is not b"), 2, "r1s: a is not b"),
        (FileError("x cannot be written"), 1, "r1s: x cannot be written"),
        (ServiceError("503"), 1, "r1s: 503"),
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), 1, "r1s: /data/x: the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), 1, "r1s: /data/x: permission denied"),
        (OSError(errno.EROFS, "Read-only file system", "/a", None, "/b"), 1, "r1s: /a and /b: the file system is"),
        (KeyboardInterrupt(), 130, "r1s: interrupted"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_what_was_foreseen_is_its_sentence(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        raise error

    assert last_resort.run(work) == code
    assert capsys.readouterr().err.startswith(said)


def test_a_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    body = "[print('x' * 1000) for _ in range(10_000)]"
    done = child(body, tmp_path, "| head -n 1; exit ${PIPESTATUS[0]}")
    assert done.returncode == 141
    assert done.stderr == b""
    assert done.stdout == b"x" * 1000 + b"\n"


def test_a_console_on_a_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    body = "from r1searcher.common import terminal; c = terminal.console(); [c.print('x' * 70) for _ in range(5_000)]"
    done = child(body, tmp_path, "| head -n 1; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_below_standard_output_is_one_sentence(tmp_path: Path) -> None:
    done = child("print('x')", tmp_path, "> /dev/full")
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert b"the disk is full" in done.stderr


def test_closed_streams_are_no_error(tmp_path: Path) -> None:
    done = child(
        "from r1searcher.common import terminal as t; t.text_line('x'); t.error_line('y')", tmp_path, "<&- >&- 2>&-"
    )
    assert done.returncode == 0


def test_an_encoding_that_lacks_a_character_is_no_error(tmp_path: Path) -> None:
    done = child("print('東京')", tmp_path, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, b"\\u6771\\u4eac\n")


def test_the_tracker_is_the_one_of_the_metadata() -> None:
    """Without an address in pyproject.toml, the line does not name one."""
    pyproject = (Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8")
    if "[project.urls]" not in pyproject:
        assert last_resort._tracker() == "the project's issue tracker"
