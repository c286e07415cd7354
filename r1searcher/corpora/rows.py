"""Splits a file's bytes into rows: lines, quoted lines, the elements of a JSON array. Memory is always bounded.

Nothing unreadable is skipped silently: a bad row becomes a `BadRow`, and a file that ends too early or
cannot be read from some point on raises `BrokenFileError`.
"""

import codecs
import io
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

from r1searcher.common.files import json_problem
from r1searcher.corpora.passage import Passage

MAX_ROW_BYTES = 64 << 20
"""The longest row that is read. Longer ones are rejected, so that a file without line ends cannot exhaust memory."""

TOO_LONG = f"the row is longer than {MAX_ROW_BYTES >> 20} MB"


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is not a passage: its position (line, or index in an array, from 1), the reason, and its beginning."""

    line: int
    reason: str
    row: str


Items = Iterator[Passage | BadRow]


class BrokenFileError(Exception):
    """The file ends too early, or cannot be read from here on. The message says where and why."""


class UnusableShapeError(ValueError):
    """A file in no corpus format. The message continues a sentence that begins with the file's name."""


def excerpt(row: bytes) -> str:
    """The beginning of a row, as text."""
    return row[:200].decode("utf-8", "replace").strip()


def lines(file: IO[bytes]) -> Iterator[tuple[int, bytes | BadRow]]:
    """Lines with their numbers from 1, without a byte order mark; a `BadRow` for one beyond `MAX_ROW_BYTES`."""
    for number in itertools.count(1):
        line = file.readline(MAX_ROW_BYTES + 1)
        if not line:
            return
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if len(line) > MAX_ROW_BYTES and not line.endswith(b"\n"):
            while (rest := file.readline(1 << 20)) and not rest.endswith(b"\n"):
                pass
            yield number, BadRow(number, TOO_LONG, excerpt(line))
        else:
            yield number, line


def quoted_lines(file: IO[bytes], quoted: bytes) -> Iterator[tuple[int, bytes | BadRow]]:
    """Rows of a tab-separated file whose fields may contain line ends inside double quotes.

    A row that contains `quoted` continues until its quotes are balanced, but never into a line that starts a new row,
    so that a stray quote loses one row and not the rest of the file.
    """
    row, first = b"", 0
    for number, line in lines(file):
        if row and (isinstance(line, BadRow) or _ROW_START.match(line)):
            yield first, row
            row = b""
        if isinstance(line, BadRow):
            yield number, line
            continue
        if not row:
            if not line.strip():
                continue
            first = number
        row += line
        if len(row) > MAX_ROW_BYTES:
            yield first, BadRow(first, TOO_LONG, excerpt(row))
            row = b""
        elif quoted not in row or row.count(b'"') % 2 == 0:
            yield first, row
            row = b""
    if row:
        yield first, row


_ROW_START = re.compile(rb"[^\t\s\"]+\t")


def json_values(file: IO[bytes]) -> Iterator[tuple[int, Any | BadRow, str]]:
    """The values of a JSON lines file, or the elements of one JSON array: number from 1, value, beginning.

    Raises `BrokenFileError` if an array ends too early or becomes unreadable; a bad line is only a `BadRow`.
    """
    buffered = file if isinstance(file, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, file))
    start = buffered.peek(1 << 16).removeprefix(codecs.BOM_UTF8).lstrip()
    yield from _elements(buffered) if _ARRAY.match(start) else _line_values(buffered)


_ARRAY = re.compile(rb"\[\s*(?:$|[^\s\d\[])")
"""Whether it is a JSON array of objects or strings. A line such as `[1]` or `[[…` is a bad row of a file of lines."""


def _line_values(file: IO[bytes]) -> Iterator[tuple[int, Any | BadRow, str]]:
    for number, line in lines(file):
        if isinstance(line, BadRow):
            yield number, line, line.row
        elif not line.isspace():
            try:
                value = json.loads(line.decode())
            except (ValueError, RecursionError) as error:
                cut = "" if line.endswith(b"\n") else ", and the file ends here: it may be truncated"
                value = BadRow(number, json_problem(error) + cut, excerpt(line))
            yield number, value, excerpt(line)


def _elements(file: IO[bytes]) -> Iterator[tuple[int, Any, str]]:
    """The elements of one JSON array, read in pieces: the array may be larger than memory."""
    window = _Window(file)
    window.skip_one("[", 0)
    number = 0
    while window.next_character() != "]":
        if number:
            window.skip_one(",", number)
        number += 1
        begin = window.excerpt()
        yield number, window.take(number), begin
    window.skip_one("]", number)
    if window.next_character():
        raise BrokenFileError(f"something follows the end of the array, after element {number}")


class _Window:
    """The part of a UTF-8 text that is in memory. Bytes that are not UTF-8 become lone surrogates, which passages may
    not contain, so that they are rejected with their row."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._json = json.JSONDecoder()
        self._text = ""
        self._at = 0
        self._ended = False

    def _more(self, size: int = 1 << 18) -> None:
        piece = self._file.read(size)
        self._ended = not piece
        self._text = self._text[self._at :] + self._utf8.decode(piece, final=self._ended)
        self._at = 0

    def next_character(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]  # it matches everywhere
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._more()

    def skip_one(self, expected: str, number: int) -> None:
        """Raises `BrokenFileError` if the next character is another one."""
        found = self.next_character()
        if not found:
            raise BrokenFileError(f"the array ends after element {number}, without its closing bracket")
        if found != expected:
            raise BrokenFileError(f"{expected!r} is missing after element {number} of the array")
        self._at += 1

    def excerpt(self) -> str:
        return self._text[self._at : self._at + 200].encode("utf-8", "replace").decode()

    def take(self, number: int) -> Any:
        """The next value, element `number` of the array."""
        self.next_character()
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._ended:
                    at_end = error.pos >= len(self._text) or "Unterminated" in error.msg
                    what = "the file ends inside" if at_end else f"{error.msg} in"
                    raise BrokenFileError(f"{what} element {number} of the array") from None
            except (ValueError, RecursionError) as error:
                raise BrokenFileError(f"element {number} of the array: {json_problem(error)}") from None
            else:
                if end < len(self._text) or self._ended:  # a number at the very end may be incomplete
                    self._at = end
                    return value
            size = len(self._text) - self._at
            if size > MAX_ROW_BYTES:
                raise BrokenFileError(f"element {number} of the array: {TOO_LONG}, or is not JSON")
            self._more(max(size, 1 << 18))  # doubling keeps a long value linear


_SPACE = re.compile(r"[ \t\n\r]*")
