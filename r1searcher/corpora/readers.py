"""Reads a corpus from a file, folder, archive or standard input as `Passage` rows."""

import bz2
import gzip
import io
import json
import lzma
import os
import stat
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, Self, cast

from r1searcher.common.files import cause_of, writing
from r1searcher.corpora.detect import detect_format
from r1searcher.corpora.formats import FORMATS
from r1searcher.corpora.passage import Passage, SharedPassage
from r1searcher.corpora.rows import BadRow, BrokenFileError, UnusableShapeError
from r1searcher.errors import FileError, InputError

BAD_ROWS_ALLOWED = 100
MAX_LAYERS = 4
"""Maximum nesting of compression and archives (HotpotQA's abstracts: bz2 in tar in bz2)."""

_PEEKED = 1 << 16
_BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, BrokenFileError)


class Corpus:
    """The passages of a source; can be iterated once.

    `source` is a file, a folder (its files in name order; only the corpus of a BEIR dataset), a tar archive (in its
    own order), a pipe, or `-` for standard input; `.gz`, `.bz2` and `.zst` are detected by content. `format_` names
    the format of all files; None detects each file's. `limit` is the maximum number of passages.

    Rows that are not passages are counted in `bad` and written to the file `rejects` (JSON lines of file, line, reason,
    row; created only if there are any); more than `bad_allowed` of them raise `InputError`. So do, regardless of
    `bad_allowed`, a file that is truncated, damaged or of another kind, and a corpus without passages. Paragraphs
    that several questions share become one passage; `repeated` counts the duplicates.
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
        if format_ is not None:
            FORMATS.require(format_, "--format")
        self._source = str(source)
        self._format = format_
        self._limit = limit
        self._rejects = rejects
        self._bad_allowed = bad_allowed
        self._files = _list_files(self._source)
        self._read = 0
        self._rows = 0
        self._current: IO[bytes] | None = None
        self._seen: set[str] = set()
        self._first_bad = ""
        self.bad = 0
        self.repeated = 0

    @property
    def files(self) -> list[Path] | None:
        """The files to be read; None for standard input."""
        return self._files

    @property
    def total_bytes(self) -> int | None:
        """Size of the source on disk; None for standard input and pipes."""
        if self._files is None or not all(file.is_file() for file in self._files):
            return None
        return sum(file.stat().st_size for file in self._files)

    @property
    def read_bytes(self) -> int:
        """How much of `total_bytes` has been read."""
        if self._current is None or self._current.closed or not self._current.seekable():
            return self._read
        return self._read + self._current.tell()

    def __iter__(self) -> Iterator[Passage]:
        taken = 0
        with ExitStack() as stack:
            rejects = stack.enter_context(_Rejects(self._rejects))
            for name, item in self._items():
                if isinstance(item, Passage):
                    if taken == self._limit:
                        return
                    taken += 1
                    yield item
                    continue
                self.bad += 1
                self._first_bad = self._first_bad or f"{name}, line {item.line}: {item.reason}"
                rejects.write(name, item)
                if self.bad > self._bad_allowed:
                    raise InputError(self._too_many(name, item))
        if not taken:
            raise InputError(self._nothing())

    def _too_many(self, name: str, last: BadRow) -> str:
        rows = "1 row is not a passage" if self.bad == 1 else f"{self.bad} rows are not passages"
        where = f" All of them are in {self._rejects}." if self._rejects else ""
        return f"{name}, line {last.line}: {last.reason}. {rows}, {self._bad_allowed} are allowed (--bad-rows).{where}"

    def _nothing(self) -> str:
        name = "Standard input" if self._files is None else self._source
        if not self.bad:
            return f"{name} does not contain a passage: it is empty."
        return f"{name} does not contain a passage: all {self.bad} rows were rejected, the first ({self._first_bad})."

    def _items(self) -> Iterator[tuple[str, Passage | BadRow]]:
        if self._files is None:
            yield from self._items_of("standard input", sys.stdin.buffer)
            return
        for path in self._files:
            try:
                file = path.open("rb")
            except OSError as error:
                raise FileError(f"{path} cannot be read: {cause_of(error)}") from error
            with file:
                self._current = file
                yield from self._items_of(str(path), file)
                self._read += path.stat().st_size
                self._current = None

    def _items_of(self, name: str, raw: IO[bytes], layers: int = 0) -> Iterator[tuple[str, Passage | BadRow]]:
        try:
            above = layers
            file, start, layers = _open(raw, above)
            if start[257:262] == b"ustar":
                for member, content in _members(file):
                    yield from self._items_of(f"{name}:{member}", content, layers + 1)
            elif start:
                yield from self._rows_of(name, file, raw if layers == above else None, start)
        except (UnusableShapeError, _LayersError) as error:
            raise InputError(f"{name} {error}.") from error
        except _BROKEN as error:
            if isinstance(error, OSError) and error.errno:
                raise FileError(f"{name} cannot be read: {cause_of(error)}") from error
            raise InputError(
                f"{name} is damaged or truncated ({error}): download or create it again, and repeat the command."
            ) from error

    def _rows_of(
        self, name: str, file: IO[bytes], plain: IO[bytes] | None, start: bytes
    ) -> Iterator[tuple[str, Passage | BadRow]]:
        format_ = FORMATS[self._format or detect_format(start, name)]
        if format_.seekable:
            file = _seekable(file, plain)
        rows = 0
        for item in format_.read(file, self._rows):
            rows += 1
            if isinstance(item, SharedPassage):
                if item.id in self._seen:
                    self.repeated += 1
                    continue
                self._seen.add(item.id)
                item = Passage(item.id, item.title, item.text)
            yield name, item
        self._rows += rows


class _Rejects:
    """The file of rejected rows, created at the first of them."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with suppress(OSError):  # `write` has flushed and reported errors
                self._file.close()

    def write(self, name: str, item: BadRow) -> None:
        """Raises `FileError`."""
        if self._path is None:
            return
        row = {"file": name, "line": item.line, "reason": item.reason, "row": item.row}
        with writing(self._path, "use --rejects to name another file"):
            if self._file is None:
                self._file = self._path.open("w", encoding="utf-8", errors="surrogateescape")
            self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
            self._file.flush()


def _list_files(source: str) -> list[Path] | None:
    if source == "-":
        return None
    if not source:
        raise InputError("The name of the corpus is empty: give a file, a folder, `-`, or the name of a known corpus.")
    path = Path(source)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        there = (
            "Download it first, and give the file" if "://" in source else "Give a file, a folder, `-`, or a known name"
        )
        raise InputError(f"There is no corpus {source}. {there}.") from None
    except OSError as error:
        shown = source if len(source) < 200 else f"{source[:100]}…"
        raise InputError(f"The corpus {shown} cannot be read: {cause_of(error)}.") from None
    if not stat.S_ISDIR(mode):
        return [path]
    files = _beir_corpus(path) or _walk(path)
    if not files:
        raise InputError(f"The folder {path} has no files: give a corpus file, a folder of them, or a name.")
    return files


def _walk(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise FileError(f"{error.filename} cannot be read: {cause_of(error)}") from error

    found = [Path(parent, name) for parent, _, names in os.walk(folder, onerror=refuse) for name in names]
    return sorted(file for file in found if file.is_file() and not file.name.startswith("."))


def _beir_corpus(folder: Path) -> list[Path]:
    """The corpus of a BEIR dataset, which is next to its queries and judgments."""
    if not any((folder / name).exists() for name in ("qrels", "queries.jsonl", "queries.jsonl.gz")):
        return []
    return sorted(file for file in folder.glob("corpus.jsonl*") if file.is_file())


def _members(file: IO[bytes]) -> Iterator[tuple[str, IO[bytes]]]:
    """Names and contents of the files of a tar archive, up to its end mark. Raises `BrokenFileError` if it is cut."""
    with tarfile.open(fileobj=file, mode="r|", tarinfo=_StrictTarInfo) as archive:
        for member in archive:
            if member.isfile() and (content := archive.extractfile(member)) is not None:
                yield member.name, content
    while piece := file.read(1 << 20):  # to the end, where a compressed file has its checksum
        if piece.strip(b"\0"):
            raise BrokenFileError("something follows the end of the archive")


class _StrictTarInfo(tarfile.TarInfo):
    """tarfile treats a truncated or damaged header, and the end of the file, as the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # the block of zeros that ends an archive
                raise
            raise BrokenFileError("the archive ends without its end mark, or a header in it is damaged") from error


class _LayersError(ValueError):
    """Compression or archives nested too deeply. The message continues after the file's name."""


class _Rest(io.RawIOBase):
    """A stream with the bytes that were already read from it in front."""

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


def _open(raw: IO[bytes], layers: int) -> tuple[IO[bytes], bytes, int]:
    """A stream of the decompressed content, its first bytes, and the number of layers opened so far."""
    while True:
        start = _peek(raw)
        file = cast(IO[bytes], io.BufferedReader(_Rest(start, raw), 1 << 20))
        unpack = next((unpack for magic, unpack in _COMPRESSIONS.items() if start.startswith(magic)), None)
        if layers > MAX_LAYERS:
            raise _LayersError(f"is compressed or archived more than {MAX_LAYERS} times: unpack it first")
        if unpack is None:
            return file, start, layers
        raw, layers = unpack(file), layers + 1


def _peek(raw: IO[bytes]) -> bytes:
    start = b""
    while len(start) < _PEEKED and (piece := raw.read(_PEEKED - len(start))):
        start += piece
    return start


_ZSTD_PIECE = 1 << 10
"""Bytes decompressed at a time: zstd expands one to at most about 32,000, and its object returns all of them."""


class _Zstd(io.RawIOBase):
    """Decompresses consecutive zstd frames. zstandard's own reader treats a truncated file as complete."""

    def __init__(self, file: IO[bytes]) -> None:
        import zstandard

        self._file = file
        self._new_frame = zstandard.ZstdDecompressor().decompressobj
        self._error = zstandard.ZstdError
        self._frame: Any = None
        self._packed = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if not self._packed and not (packed := self._file.read(_ZSTD_PIECE)):
                if self._frame is not None:
                    raise EOFError("the last zstd frame is incomplete")
                return 0
            self._packed = self._packed or packed
            if self._frame is None:
                self._frame = self._new_frame()
            try:
                self._ready = memoryview(self._frame.decompress(self._packed))
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


def _seekable(file: IO[bytes], plain: IO[bytes] | None) -> IO[bytes]:
    """A file in which the reader may seek: a plain file directly, anything else as a temporary copy on disk."""
    if isinstance(plain, io.BufferedReader) and isinstance(plain.raw, io.FileIO) and plain.seekable():
        plain.seek(0)
        return plain
    with writing(tempfile.gettempdir(), "set TMPDIR to another folder"):
        copy = cast(IO[bytes], tempfile.TemporaryFile(buffering=0))  # noqa: SIM115  # the reader keeps it
    while piece := file.read(1 << 20):
        with writing(tempfile.gettempdir(), "set TMPDIR to another folder"):
            copy.write(piece)
    copy.seek(0)
    return copy


def read_passages(path: Path) -> Iterator[Passage]:
    """The passages of a corpus in which every row must be one. Raises `InputError` with the first row that is not."""
    return iter(Corpus(path, bad_allowed=0))
