"""Checks whether the files of an embedded index are unchanged since it was built.

    DIR/checksums.json   {"files": {"tantivy/….idx": {"size": bytes, "modified_ns": …, "sha256": "…"}, …}}

tantivy maps its files into memory and trusts them: a damaged one makes it panic, loop, or find wrong passages. So a
file is trusted only while its size and modification time are those of the build; otherwise its SHA-256 decides.
"""

import hashlib
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, Field, ValidationError

from r1searcher.common.files import cause_of, parse_json, write_json
from r1searcher.errors import InputError
from r1searcher.retrieval.indexing.manifest import ENGINE, MANIFEST, PROGRESS

CHECKSUMS = "checksums.json"
_TRANSIENT = (CHECKSUMS, PROGRESS)
_HASH_BLOCK = 1 << 20


class _File(BaseModel):
    size: int = Field(ge=0)
    modified_ns: int
    sha256: str


class _Checksums(BaseModel):
    files: dict[str, _File]


class _Stamp(NamedTuple):
    """Properties that change whenever a file is written to."""

    size: int
    modified_ns: int


def write_checksums(folder: Path) -> None:
    """Records the files of a finished index. Raises `FileError` if that cannot be written."""
    files = {}
    for name in _names(folder):
        descriptor = os.open(folder / name, os.O_RDONLY)
        try:
            size, modified_ns = _stamp(descriptor)
            files[name] = {"size": size, "modified_ns": modified_ns, "sha256": _sha256(descriptor)}
        finally:
            os.close(descriptor)
    write_json(folder / CHECKSUMS, {"files": files})


def has_checksums(folder: Path) -> bool:
    return (folder / CHECKSUMS).is_file()


class IndexFiles:
    """The files of an index, kept open to detect later changes.

    Raises `InputError` if one is missing or truncated, or its content is not that of the build. `thorough` reads
    all of them; otherwise only those whose modification time is not that of the build. Indexes of earlier versions do
    not have checksums: their files are watched, not checked, and `thorough` rejects them.
    """

    def __init__(self, folder: Path, thorough: bool = False) -> None:
        self._folder = folder
        descriptors: list[int] = []
        self.close = weakref.finalize(self, _close, descriptors)
        known = _read(folder)
        if known is None and thorough:
            raise InputError(
                f"{folder} was built by an earlier version without checksums, so it cannot be checked: "
                "build it again with `r1s index-corpus`."
            )
        self._mapped: list[tuple[str, int, int, int]] = []
        for name in known or _names(folder):
            try:
                descriptors.append(os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC))
            except (OSError, ValueError) as error:
                raise self._damaged(name, cause_of(error) if isinstance(error, OSError) else "bad name") from error
            if not name.endswith(".json"):  # those are read once
                self._mapped.append((name, descriptors[-1], *_stamp(descriptors[-1])))
            if known:
                self._check(name, known[name], descriptors[-1], thorough)

    def _check(self, name: str, built: _File, descriptor: int, thorough: bool) -> None:
        size, modified_ns = _stamp(descriptor)
        if size != built.size:
            raise self._damaged(name, f"it has {size:,} bytes instead of {built.size:,}")
        if (thorough or modified_ns != built.modified_ns) and _sha256(descriptor) != built.sha256:
            raise self._damaged(name, "its checksum is wrong")

    def _damaged(self, name: str, why: str) -> InputError:
        return InputError(f"The index {self._folder} is damaged ({name}: {why}): {REMEDY}")

    def changed(self) -> str | None:
        """The name of a file mapped by tantivy that has changed since it was opened. Takes microseconds per file."""
        for name, descriptor, size, modified_ns in self._mapped:
            status = os.fstat(descriptor)
            if status.st_mtime_ns != modified_ns or status.st_size != size:
                return name
        return None


def is_panic(error: BaseException) -> bool:
    """Whether Rust code panicked: pyo3_runtime.PanicException is not an `Exception` and cannot be imported."""
    return type(error).__name__ == "PanicException"


REMEDY = "restore its files, or build it again with `r1s index-corpus`."


def _read(folder: Path) -> dict[str, _File] | None:
    path = folder / CHECKSUMS
    try:
        files = _Checksums.model_validate(parse_json(path.read_bytes())).files
        if MANIFEST not in files:
            raise ValueError("incomplete")
        return files
    except FileNotFoundError:
        return None
    except (OSError, ValidationError, ValueError) as error:
        raise InputError(f"The index {folder} is damaged ({CHECKSUMS} cannot be read): {REMEDY}") from error


def _names(folder: Path) -> Iterator[str]:
    for place in (folder, folder / ENGINE):
        for path in sorted(place.iterdir()):
            if path.is_file() and path.suffix != ".lock" and path.name not in _TRANSIENT:
                yield str(path.relative_to(folder))


def _stamp(descriptor: int) -> _Stamp:
    status = os.fstat(descriptor)
    return _Stamp(status.st_size, status.st_mtime_ns)


def _sha256(descriptor: int) -> str:
    digest = hashlib.sha256()
    place = 0
    while block := os.pread(descriptor, _HASH_BLOCK, place):
        digest.update(block)
        place += len(block)
    return digest.hexdigest()


def _close(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())
