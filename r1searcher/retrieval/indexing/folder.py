"""The folder of an index: what it may be called, and how a finished one takes its place."""

import os
import shutil
from pathlib import Path

from r1searcher.common.files import cause_of, sync, writing
from r1searcher.errors import FileError, InputError
from r1searcher.retrieval.indexing.lock import LOCK
from r1searcher.retrieval.indexing.manifest import MANIFEST, PROGRESS, is_index

MAX_NAME_BYTES = 255 - len(".rejects.jsonl")
"""The longest name of an index folder: names of sibling folders are derived from it."""


def check_folder(path: Path, overwrite: bool) -> None:
    """Raises `InputError` if an index could not get the name `path`. `overwrite` allows an index that is there."""
    _check_name(path)
    if is_index(path):
        if not overwrite:
            raise InputError(f"{path} already contains an index: use it, choose another folder, or add --overwrite.")
    elif path.exists() and (not path.is_dir() or _holds_anything(path)):
        raise InputError(f"{path} exists and is not an index: choose another folder.")


def _check_name(path: Path) -> None:
    """Raises `InputError` for an invalid name of an index folder."""
    if "\0" in str(path) or any(len(os.fsencode(part)) > MAX_NAME_BYTES for part in path.parts):
        raise InputError(f"{str(path)[:60]!r}… is not a valid name: at most {MAX_NAME_BYTES} bytes, without NUL.")
    here, there = Path.cwd(), Path(os.path.abspath(path))
    if not path.name or there == here or there in here.parents:
        raise InputError(f"{path} is the current folder or one above it: give a folder only for the index.")
    above = next(parent for parent in there.parents if os.path.lexists(parent))
    if above.exists() and not above.is_dir():
        raise InputError(f"{path} cannot be created: {above} is not a folder; choose another one.")


def _holds_anything(path: Path) -> bool:
    try:
        return any(path.iterdir())
    except OSError as error:
        raise FileError(f"{path} cannot be read: {cause_of(error)}") from error


def empty(folder: Path) -> None:
    """Removes everything in a folder except its lock."""
    with writing(folder):
        for entry in folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != LOCK:
                entry.unlink()


def publish(finished: Path, path: Path, then: str) -> None:
    """Moves a finished folder into place. The old index is moved aside first, since folders cannot be swapped.

    Raises `FileError`, which ends with `then`.
    """
    old = path.with_name(path.name + ".old")
    with writing(path, then):
        mode = (finished / MANIFEST).stat().st_mode & 0o666  # of a file that we created: what the umask allows
        for folder, _, names in os.walk(finished, topdown=False):
            for name in names:
                file = Path(folder, name)
                file.chmod(mode)  # tantivy makes some of its files readable only by their owner
                sync(file)
            sync(Path(folder))
        if is_index(path):
            shutil.rmtree(old, ignore_errors=True)
            path.rename(old)
        finished.rename(path)
        sync(path.parent)
        for left in (PROGRESS, LOCK):
            (path / left).unlink(missing_ok=True)
    shutil.rmtree(old, ignore_errors=True)
