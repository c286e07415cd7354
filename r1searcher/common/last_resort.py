"""The exit code of a command, and one sentence on standard error, for every way it can end.

    R1Error              its sentence; 1 or 2
    OSError              full disk, missing permission, …: which file, why, how to fix it; 1
    KeyboardInterrupt    130
    closed output        nothing; 141, as a shell reports SIGPIPE
    anything else        a bug: where the traceback was written and where to report it; 70

The traceback goes to a file that only its owner can read. Keys from the environment and passwords in URLs are
removed from it.
"""

import os
import re
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path

from r1searcher.common.files import cache_folder, cause_of, is_environment
from r1searcher.common.terminal import error_line
from r1searcher.errors import R1Error

BUG = 70
"""Exit code of an internal error (EX_SOFTWARE of sysexits.h)."""

INTERRUPTED = 130
CLOSED_OUTPUT = 128 + 13

_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSW|AUTH|CREDENTIAL", re.IGNORECASE)
_USER_INFO = re.compile(r"(?<=://)[^\s/@'\"]+@")
_BEARER = re.compile(r"(?i)(bearer|basic)\s+[^\s'\"]+")


def run(work: Callable[[], int]) -> int:
    """Call `work` and return the exit code; any exception becomes one sentence. `SystemExit` is not caught."""
    _repair_streams()
    try:
        code = work()
        _flush()
        return code
    except SystemExit:
        raise
    except BaseException as error:
        return _sentence_for(error)


def _sentence_for(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        error_line("r1s: interrupted; finished work is saved, run the same command again to resume")
        return INTERRUPTED
    if _output_is_closed():
        _discard_output()
        return CLOSED_OUTPUT
    if isinstance(error, R1Error):
        error_line(f"r1s: {error}")
        return error.exit_code
    if isinstance(error, OSError) and is_environment(error):
        _discard_output()
        error_line(f"r1s: {_file_of(error)}: {cause_of(error)}")
        return 1
    error_line(f"r1s: {_bug(error)}")
    return BUG


def _file_of(error: OSError) -> str:
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return " and ".join(names) if names else "a file, or standard output, cannot be written"


def _bug(error: BaseException) -> str:
    """One line: that this is a bug, where its traceback is, where to report it."""
    kind = f"{type(error).__name__}: {' '.join(str(error).split())}" if str(error).strip() else type(error).__name__
    return (
        f"this is a bug in r1s ({without_secrets(kind)[:300]}); {_written(error)}; please report it with that text to "
        f"{_tracker()}"
    )


def _written(error: BaseException) -> str:
    import tempfile
    import traceback

    text = without_secrets(
        f"r1s {_version()}, Python {sys.version.split()[0]}, {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}\n"
        f"{' '.join(sys.argv)}\n\n{''.join(traceback.format_exception(error))}"
    )
    data = text.encode("utf-8", "backslashreplace")
    for folder in (cache_folder("crashes"), Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(".txt", time.strftime("r1s-%Y%m%d-%H%M%S-"), folder)  # mode 0600
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            return f"the traceback is in {name}"
        except OSError:
            continue
    return "the traceback could not be written to the cache folder or the folder for temporary files"


def without_secrets(text: str) -> str:
    """Text without the values of environment variables like …KEY or …TOKEN, and without passwords in URLs."""
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name) and len(value) >= 4:
            for spelling in {value, value.strip(), repr(value)[1:-1], repr(value.encode("utf-8", "replace"))[2:-1]}:
                text = text.replace(spelling, f"[{name}]")
    return _BEARER.sub(r"\1 […]", _USER_INFO.sub("…@", text))


def _tracker() -> str:
    """The issue tracker's address from the package's metadata."""
    from importlib import metadata

    try:
        for entry in metadata.metadata("r1searcher").get_all("Project-URL") or []:
            label, _, url = entry.partition(",")
            if label.strip().lower() in ("issues", "issue tracker", "bug tracker", "bugs"):
                return str(url).strip()
    except metadata.PackageNotFoundError:
        pass
    return "the project's issue tracker"


def _version() -> str:
    from r1searcher import __version__

    return __version__


def _repair_streams() -> None:
    """Makes streams accept any text: closed ones become /dev/null, and unencodable characters become escapes."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  # as long as the process
        elif mode == "w" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def _output_is_closed() -> bool:
    """Whether the process that reads our output through a pipe has ended (`| head`)."""
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), select.POLLERR)
    except (OSError, ValueError):  # no file descriptor, as in tests
        return False
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _discard_output() -> None:
    """Discards buffered output that cannot be written: Python would report it again at exit."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
