"""Archives of an index: tar, alone or compressed with gzip or Zstandard.

The same index gives the same bytes: `index/checksums.json` comes first, then the files that it lists, by name, without
owners and times. A reader takes nothing but folders and these files, each once and with the listed size. So no name
leads out of the folder, and there are no links, devices or headers of any length.
"""

import gzip
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from io import BufferedReader
from typing import Any, BinaryIO

import zstandard

from r1searcher.common.files import cause_of
from r1searcher.retrieval.indexing.integrity import CHECKSUMS, MAX_CHECKSUMS_BYTES

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.zst")
_ROOT = "index"
_BLOCK = tarfile.BLOCKSIZE
_MOST_FOLDERS = 1000
"""Between two files: headers of folders alone, compressed, could go on for hours."""


class ArchiveWriter:
    """Writes files into an archive."""

    def __init__(self, sink: Any) -> None:
        self._sink = sink

    @classmethod
    @contextmanager
    def open(cls, file: BinaryIO, name: str) -> Iterator["ArchiveWriter"]:
        """An archive in `file`, which is not closed; `name` says how it is compressed."""
        with ExitStack() as stack:
            sink: Any = file
            if name.endswith((".gz", ".tgz")):
                sink = stack.enter_context(gzip.GzipFile("", "wb", 6, file, mtime=0))
            elif name.endswith(".zst"):
                sink = stack.enter_context(zstandard.ZstdCompressor(level=3).stream_writer(file, closefd=False))
            yield cls(sink)
            sink.write(bytes(2 * _BLOCK))

    def add(self, name: str, size: int, blocks: Iterable[bytes]) -> None:
        """One file, of which the blocks have `size` bytes together."""
        info = tarfile.TarInfo(f"{_ROOT}/{name}")
        info.size = size
        self._sink.write(info.tobuf(tarfile.GNU_FORMAT, "ascii", "strict"))
        for block in blocks:
            self._sink.write(block)
        self._sink.write(bytes(-size % _BLOCK))


class ArchiveReader:
    """The files of an archive, in their order. Its methods raise `ValueError` for one that is not ours."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._size = self._left = 0

    @classmethod
    @contextmanager
    def open(cls, file: BufferedReader) -> Iterator["ArchiveReader"]:
        """Its compression is recognized by content."""
        start = file.peek(4)
        if start.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=file) as stream:
                yield cls(stream)
        elif start.startswith(b"\x28\xb5\x2f\xfd"):
            with zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True, closefd=False) as stream:
                yield cls(stream)
        else:
            yield cls(file)

    def checksums(self) -> bytes:
        """The first file."""
        if self._next() != CHECKSUMS:
            raise ValueError(f"it does not begin with {CHECKSUMS}, so it is not from `r1s index push`")
        if self._size > MAX_CHECKSUMS_BYTES:
            raise ValueError(f"its {CHECKSUMS} has {self._size:,} bytes")
        return self._exactly(self._size)

    def files(self) -> Iterator[tuple[str, int]]:
        """Name and size of each further file, which `read` then reads."""
        while (name := self._next()) is not None:
            yield name, self._size

    def read(self, size: int) -> bytes:
        """Up to `size` bytes of the current file; empty at its end."""
        data = self._read(min(size, self._left))
        self._left -= len(data)
        return data

    def _next(self) -> str | None:
        """The next file's name in the index; None at the end."""
        self._exactly(self._left + -self._size % _BLOCK)
        for _ in range(_MOST_FOLDERS):
            self._size = self._left = 0
            header = self._read(_BLOCK)
            if header == bytes(_BLOCK):
                return None
            try:
                info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
            except tarfile.HeaderError as error:
                raise ValueError(f"it is not a whole tar archive: {error}") from None
            folder, _, name = info.name.partition("/")
            if (
                folder != _ROOT
                or info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE)
                or info.size < 0
            ):
                raise ValueError(f"it contains {info.name[:100]!r}, which is not a file of an index")
            if info.type != tarfile.DIRTYPE:
                self._size = self._left = info.size
                return name
        raise ValueError(f"it contains more than {_MOST_FOLDERS:,} folders")

    def _exactly(self, size: int) -> bytes:
        data = self._read(size)
        if len(data) != size:
            raise ValueError("it ends too early")
        self._left = 0
        return data

    def _read(self, size: int) -> bytes:
        try:
            return bytes(self._stream.read(size))
        except OSError as error:
            raise ValueError(cause_of(error)) from error
        except (EOFError, zlib.error, zstandard.ZstdError) as error:
            raise ValueError(str(error) or "it ends too early") from None
