"""Checks whether the files of an embedded index are unchanged since it was built.

    DIR/checksums.json   {"files": {"tantivy/….idx": {"size": bytes, "modified_ns": …, "sha256": "…"}, …}}

tantivy maps its files into memory and trusts them: a damaged one makes it panic, loop, or find wrong passages. So a
file is trusted only while its size and modification time are those of the build; otherwise its SHA-256 decides.
"""

import hashlib
import os
import re
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple, Protocol

from pydantic import AfterValidator, BaseModel, Field, ValidationError
from pydantic_core import PydanticCustomError

from r1searcher.common.files import cause_of, parse_json, write_json
from r1searcher.common.records import problem_in
from r1searcher.errors import InputError
from r1searcher.retrieval.indexing.manifest import ENGINE, MANIFEST, PROGRESS

CHECKSUMS = "checksums.json"
_TRANSIENT = (CHECKSUMS, PROGRESS)
_HASH_BLOCK = 1 << 20


MAX_CHECKSUMS_BYTES = 4 << 20
_PART = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+"


class ListedFile(BaseModel):
    size: int = Field(ge=0, lt=1 << 62)
    modified_ns: int = Field(ge=0, lt=1 << 62)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


def _relative(name: str) -> str:
    """A name that leads to nothing outside the folder, and fits into the header of a tar archive."""
    if len(name) > 90 or not re.fullmatch(rf"{_PART}(?:/{_PART}){{0,3}}", name):
        raise PydanticCustomError("name", "is not the name of an index file")
    return name


ListedFiles = dict[Annotated[str, AfterValidator(_relative)], ListedFile]


class _Checksums(BaseModel):
    files: ListedFiles = Field(max_length=10_000)


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


def parse_checksums(data: bytes) -> ListedFiles:
    """The files that the content of a `checksums.json` lists. Raises `ValueError` for anything that is not one.

    The names are relative and lead to nothing outside the folder.
    """
    try:
        files = _Checksums.model_validate(parse_json(data)).files
    except ValidationError as error:
        raise ValueError(f"{CHECKSUMS}: {problem_in(error)}") from None
    except ValueError as error:
        raise ValueError(f"{CHECKSUMS}: {error}") from None
    if MANIFEST not in files or CHECKSUMS in files:
        raise ValueError(f"{CHECKSUMS} does not list {MANIFEST}, or lists itself")
    return files


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def blocks_of(stream: Readable, size: int, name: str, listed: ListedFile) -> Iterator[bytes]:
    """The next `size` bytes of a stream, if they are a listed file. Raises `ValueError` as soon as they are not."""
    if size != listed.size:
        raise ValueError(f"{name}: it has {size:,} bytes instead of {listed.size:,}")
    digest = hashlib.sha256()
    while size:
        try:
            block = stream.read(min(size, _HASH_BLOCK))
        except OSError as error:
            raise ValueError(f"{name}: {cause_of(error)}") from error
        if not block:
            raise ValueError(f"{name}: it ends {size:,} bytes too early")
        digest.update(block)
        size -= len(block)
        yield block
    if digest.hexdigest() != listed.sha256:
        raise ValueError(f"{name}: its checksum is wrong")


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

    def _check(self, name: str, built: ListedFile, descriptor: int, thorough: bool) -> None:
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


def _read(folder: Path) -> ListedFiles | None:
    path = folder / CHECKSUMS
    try:
        return parse_checksums(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"The index {folder} is damaged ({CHECKSUMS} cannot be read): {REMEDY}") from error


def _names(folder: Path) -> Iterator[str]:
    for place in filter(Path.is_dir, (folder, folder / ENGINE)):
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
