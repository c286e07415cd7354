"""Moves an embedded index, of any kind: everything that its `checksums.json` lists.

An index is received in the sibling folder `FOLDER.pulling`, and renamed when it is whole. Checksums show that the files
are those of the list, not who made them.
"""

import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Protocol

from r1searcher.common.files import cause_of, sync, writing
from r1searcher.errors import InputError
from r1searcher.retrieval.indexing.archive import SUFFIXES, ArchiveReader, ArchiveWriter
from r1searcher.retrieval.indexing.folder import check_folder, empty, publish
from r1searcher.retrieval.indexing.hub import HubDataset
from r1searcher.retrieval.indexing.integrity import (
    CHECKSUMS,
    MAX_CHECKSUMS_BYTES,
    blocks_of,
    has_checksums,
    parse_checksums,
)
from r1searcher.retrieval.indexing.lock import build_lock
from r1searcher.retrieval.indexing.manifest import is_index
from r1searcher.retrieval.indexing.received import OnProgress, ReceivedIndex


def push(folder: Path, target: str, overwrite: bool, on_progress: OnProgress) -> None:
    """Copies the index in `folder` to another folder, an archive (.tar, .tar.gz, .tgz, .tar.zst) or the hub
    (`hf://datasets/OWNER/NAME[@REVISION]`).

    Raises `InputError` for an index that is missing, unfinished or damaged and for a target that is in use, `FileError`
    and `ServiceError` if the target cannot be written. The target is whole or not there.
    """
    if not is_index(folder):
        raise InputError(f"{folder} is not a finished index: give the folder that `r1s index-corpus` created.")
    if not has_checksums(folder):
        raise InputError(f"{folder} was built by an earlier version without checksums: build it again.")
    there = HubDataset.parse(target) or _path(target)
    with _judged(folder):
        if isinstance(there, HubDataset):
            there.upload(folder, parse_checksums(_Folder(folder).checksums()), overwrite)
        elif folder.resolve() in there.absolute().resolve().parents:
            raise InputError(f"{target} is inside the index {folder}: choose another place.")
        elif target.endswith(SUFFIXES):
            _write_archive(_Folder(folder), there, overwrite, on_progress)
        else:
            _receive(_Folder(folder), target, there, overwrite, on_progress)


def pull(source: str, folder: Path, overwrite: bool, on_progress: OnProgress) -> None:
    """Copies an index from another folder, an archive or the hub into `folder`, which appears only when it is whole.

    A download from the hub is resumed by the next call. Raises `InputError` for a source that is not a whole index and
    for a folder that is in use, `FileError` and `ServiceError` if reading or writing failed.
    """
    _receive(_source(source), source, folder, overwrite, on_progress)


def _source(name: str) -> "_Source":
    if hub := HubDataset.parse(name):
        return hub
    there = _path(name)
    if not there.exists():
        raise InputError(f"{name} does not exist: give a folder, an archive or hf://datasets/OWNER/NAME.")
    return _Folder(there) if there.is_dir() else _Archive(there)


def _path(name: str) -> Path:
    if re.match(r"[A-Za-z0-9+.-]+://", name) or not name.strip() or "\0" in name:
        wanted = f"a folder, an archive ({', '.join(SUFFIXES)}) or hf://datasets/OWNER/NAME"
        raise InputError(f"{name[:200]!r} cannot be used: give {wanted}.")
    return Path(name)


@contextmanager
def _judged(source: object) -> Iterator[None]:
    """Turns the `ValueError` of a file that is not the listed one into an `InputError` about the source."""
    try:
        yield
    except ValueError as error:
        raise InputError(f"{source} is not a whole index ({error}): restore it, or get it again.") from None


class _Source(Protocol):
    """Where an index comes from. `resumes`: what was received of an interrupted one is used."""

    resumes: bool

    def fetch(self, work: Path, on_progress: OnProgress) -> None:
        """Puts all files of the index into `work`. Raises `ValueError` if they are not those of the list."""
        ...


def _receive(source: _Source, shown: str, folder: Path, overwrite: bool, on_progress: OnProgress) -> None:
    if folder.is_symlink():
        folder = folder.resolve()
    check_folder(folder, overwrite)
    work = folder.with_name(folder.name + ".pulling")
    with build_lock(work, folder, "pulled"):
        check_folder(folder, overwrite)  # another process may have ended in the meantime
        try:
            if not source.resumes:
                empty(work)
            with _judged(shown):
                source.fetch(work, on_progress)
            publish(work, folder, "run the same command again")
        except BaseException:
            if not source.resumes or not (work / CHECKSUMS).exists():
                shutil.rmtree(work, ignore_errors=True)
            raise


class _Folder:
    resumes = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def checksums(self) -> bytes:
        with self.opened(CHECKSUMS) as (file, _):
            return file.read(MAX_CHECKSUMS_BYTES)

    @contextmanager
    def opened(self, name: str) -> Iterator[tuple[BufferedReader, int]]:
        """A file and its size. Raises `ValueError` if there is no such regular file."""
        try:
            descriptor = os.open(self._folder / name, os.O_RDONLY | os.O_NONBLOCK)  # does not wait for a pipe
        except OSError as error:
            raise ValueError(f"{name}: {cause_of(error)}") from error
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"{name} is not a file")
            yield file, status.st_size

    def fetch(self, work: Path, on_progress: OnProgress) -> None:
        index = ReceivedIndex(work, self.checksums(), on_progress)
        for name in sorted(index.files):
            with self.opened(name) as (file, size):
                index.write(name, file, size)


class _Archive:
    resumes = False

    def __init__(self, path: Path) -> None:
        self._path = path

    def fetch(self, work: Path, on_progress: OnProgress) -> None:
        with _Folder(self._path.parent).opened(self._path.name) as (file, _), ArchiveReader.open(file) as archive:
            index = ReceivedIndex(work, archive.checksums(), on_progress)
            for name, size in archive.files():
                index.write(name, archive, size)
            index.require_all()


def _write_archive(source: _Folder, archive: Path, overwrite: bool, on_progress: OnProgress) -> None:
    if archive.exists() and (not overwrite or not archive.is_file()):
        raise InputError(f"{archive} already exists: choose another name, or add --overwrite for a file.")
    part = archive.with_name(f"{archive.name}.{uuid.uuid4().hex[:8]}.part")
    checksums = source.checksums()
    files = sorted(parse_checksums(checksums).items())
    total = sum(listed.size for _, listed in files)
    done = 0
    with writing(archive):
        archive.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("xb") as sink, ArchiveWriter.open(sink, archive.name) as out:
                out.add(CHECKSUMS, len(checksums), [checksums])
                for name, listed in files:
                    with source.opened(name) as (file, size):
                        out.add(name, listed.size, blocks_of(file, size, name, listed))
                    on_progress(done := done + listed.size, total)
            sync(part)
            part.replace(archive)
        finally:
            part.unlink(missing_ok=True)
