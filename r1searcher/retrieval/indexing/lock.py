"""One process writes a folder: a lock that the operating system releases when its process ends in any way."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from r1searcher.common.files import writing
from r1searcher.errors import InputError

LOCK = "building.lock"


@contextmanager
def build_lock(folder: Path, target: Path, done: str = "built") -> Iterator[None]:
    """Creates `folder` and holds its lock. Raises `InputError` that names the process which already holds it.

    `done` says there what happens to `target`.
    The folder may be renamed, and its other content removed, while the lock is held.
    """
    path = folder / LOCK
    while True:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            except FileNotFoundError:  # the build that was there has just been published
                continue
        try:
            with writing(path):
                if not _lock(handle):
                    raise InputError(_who(handle, target, done))
            if not _is_at(handle, path):
                continue
            with writing(path):
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"{os.getpid()} {socket.gethostname()} {time.time():.0f}".encode(), 0)
            yield
            return
        finally:
            os.close(handle)


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Whether the locked file still has this name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _who(handle: int, target: Path, done: str) -> str:
    process, _, rest = os.pread(handle, 300, 0).decode("utf-8", "replace").partition(" ")
    host, _, begun = rest.partition(" ")
    by = f"process {process} on {host}" if process.isdigit() else "another process"
    since = f" since {time.strftime('%H:%M:%S', time.localtime(int(begun)))}" if begun.isdigit() else ""
    return f"{target} is being {done} by {by}{since}: wait for it, end it, or choose another folder."
