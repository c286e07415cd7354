"""A corpus on disk, whatever its shape: file, folder, archive or standard input -> `Passage` rows."""

import bz2
import gzip
import io
import json
import lzma
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, cast

from r1searcher.corpora.formats import FORMATS, BadRow, recognise
from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError

BAD_ROWS_ALLOWED = 100

_PEEKED = 1 << 16
_BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError)


class Corpus:
    """Passages of a source, to be iterated once.

    `source` is a file, a folder (its files in the order of their names), a tar archive (in its own order) or `-` for
    standard input; `.gz`, `.bz2` and `.zst` are recognised by their content. `format` names the format of all of it;
    None recognises each file. `limit` ends after so many passages.

    Rows that are no passages are counted in `bad`, written to the file `rejects` (JSON lines of file, line, reason,
    row; made only if there are any), and past `bad_allowed` of them the reading stops with `InputError`.
    """

    def __init__(
        self,
        source: str | Path,
        format_: str | None = None,
        *,
        limit: int | None = None,
        rejects: Path | None = None,
        bad_allowed: int = BAD_ROWS_ALLOWED,
    ) -> None:
        if format_ is not None and format_ not in FORMATS:
            raise InputError(f"There is no corpus format {format_!r}: choose one of {', '.join(FORMATS)}.")
        self._source = str(source)
        self._format = format_
        self._limit = limit
        self._rejects = rejects
        self._bad_allowed = bad_allowed
        self._files = self._list_files()
        self._read = 0
        self._current: IO[bytes] | None = None
        self.bad = 0

    @property
    def total_bytes(self) -> int | None:
        """Size of the source as it lies on disk; None for standard input."""
        return None if self._files is None else sum(file.stat().st_size for file in self._files)

    @property
    def read_bytes(self) -> int:
        """How much of `total_bytes` has been read."""
        if self._current is None or self._current.closed or self._files is None:
            return self._read
        return self._read + self._current.tell()

    def __iter__(self) -> Iterator[Passage]:
        taken = 0
        with ExitStack() as stack:
            rejects: IO[str] | None = None
            for name, item in self._items():
                if isinstance(item, Passage):
                    if taken == self._limit:
                        return
                    taken += 1
                    yield item
                    continue
                self.bad += 1
                if self._rejects is not None:
                    if rejects is None:
                        rejects = stack.enter_context(self._rejects.open("w", encoding="utf-8"))
                    row = {"file": name, "line": item.line, "reason": item.reason, "row": item.row}
                    rejects.write(json.dumps(row, ensure_ascii=False) + "\n")
                    rejects.flush()
                if self.bad > self._bad_allowed:
                    raise InputError(self._too_many(name, item))

    def _too_many(self, name: str, last: BadRow) -> str:
        rows = "1 row is" if self.bad == 1 else f"{self.bad} rows are"
        where = f" All of them are in {self._rejects}." if self._rejects else ""
        return (
            f"{name}, line {last.line}: {last.reason}. {rows} no passage, "
            f"{self._bad_allowed} are allowed (--bad-rows).{where}"
        )

    def _list_files(self) -> list[Path] | None:
        if self._source == "-":
            return None
        path = Path(self._source)
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
            if not files:
                raise InputError(f"The folder {path} holds no file: give a corpus file, a folder of them, or a name.")
            return files
        if not path.exists():
            raise InputError(f"There is no corpus {path}: give a file, a folder, `-`, or the name of a known corpus.")
        return [path]

    def _items(self) -> Iterator[tuple[str, Passage | BadRow]]:
        if self._files is None:
            yield from self._items_of("standard input", sys.stdin.buffer)
            return
        for path in self._files:
            try:
                with path.open("rb") as file:
                    self._current = file
                    yield from self._items_of(str(path), file)
                    self._read += path.stat().st_size
                    self._current = None
            except PermissionError as error:
                raise InputError(f"{path} cannot be read: {error.strerror}.") from error

    def _items_of(self, name: str, raw: IO[bytes]) -> Iterator[tuple[str, Passage | BadRow]]:
        try:
            file, start = _open(raw)
            if start[257:262] == b"ustar":
                with tarfile.open(fileobj=file, mode="r|") as archive:
                    for member in archive:
                        if member.isfile() and (content := archive.extractfile(member)) is not None:
                            yield from self._items_of(f"{name}:{member.name}", content)
                return
            if not start:
                return
            format_ = self._format or recognise(start)
            if format_ is None:
                raise InputError(
                    f"{name} is in no corpus format that is known: name one with --format ({', '.join(FORMATS)})."
                )
            if format_ == "parquet":
                file = _seekable(file, raw)
            for item in FORMATS[format_](file):
                yield name, item
        except _BROKEN as error:
            raise InputError(f"{name} is damaged or cut short ({error}): fetch it again.") from error


class _Rest(io.RawIOBase):
    """A stream with the bytes that were already taken from it put back."""

    def __init__(self, start: bytes, rest: IO[bytes]) -> None:
        self._start = start
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._start[: len(buffer)] if self._start else self._rest.read(len(buffer))
        self._start = self._start[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)


def _open(raw: IO[bytes]) -> tuple[IO[bytes], bytes]:
    """A stream of the decompressed content, and its first bytes."""
    while True:
        start = _peek(raw)
        file = cast(IO[bytes], io.BufferedReader(_Rest(start, raw), 1 << 20))
        unpack = next((unpack for magic, unpack in _COMPRESSIONS.items() if start.startswith(magic)), None)
        if unpack is None:
            return file, start
        raw = unpack(file)


def _peek(raw: IO[bytes]) -> bytes:
    start = b""
    while len(start) < _PEEKED and (piece := raw.read(_PEEKED - len(start))):
        start += piece
    return start


class _Zstd(io.RawIOBase):
    """Decompresses zstd frames, one after the other. zstandard's own reader takes a file cut short for a whole one."""

    def __init__(self, file: IO[bytes]) -> None:
        import zstandard

        self._file = file
        self._new_frame = zstandard.ZstdDecompressor().decompressobj
        self._error = zstandard.ZstdError
        self._frame: Any = None
        self._packed = b""
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if not self._packed and not (packed := self._file.read(1 << 17)):
                if self._frame is not None:
                    raise EOFError("the last zstd frame is incomplete")
                return 0
            self._packed = self._packed or packed
            if self._frame is None:
                self._frame = self._new_frame()
            try:
                self._ready = self._frame.decompress(self._packed)
            except self._error as error:
                raise OSError(str(error)) from error
            self._packed = self._frame.unused_data
            if self._frame.eof:
                self._frame = None
        piece, self._ready = self._ready[: len(buffer)], self._ready[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)


_COMPRESSIONS: dict[bytes, Callable[[IO[bytes]], IO[bytes]]] = {
    b"\x1f\x8b": lambda file: cast(IO[bytes], gzip.GzipFile(fileobj=file)),
    b"BZh": lambda file: cast(IO[bytes], bz2.BZ2File(file)),
    b"\x28\xb5\x2f\xfd": lambda file: cast(IO[bytes], _Zstd(file)),
}


def _seekable(file: IO[bytes], raw: IO[bytes]) -> IO[bytes]:
    """Parquet is read from its end: a plain file as it is, anything else from memory."""
    if isinstance(raw, io.BufferedReader) and raw.seekable():
        raw.seek(0)
        return raw
    return io.BytesIO(file.read())


def read_passages(path: Path) -> Iterator[Passage]:
    """The passages of a corpus in which every row must be one. Raises `InputError` with the first that is not."""
    return iter(Corpus(path, bad_allowed=0))
