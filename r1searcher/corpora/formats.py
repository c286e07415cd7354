"""The shapes in which people keep passages, and how each becomes `Passage` rows.

A *format* turns one file's content into items: `Passage`s, and `BadRow`s for what it could not read. Every row of the
file becomes one or the other; none is guessed at.

    jsonl        a line a row: `id`, `title`, `text`, or Search-R1's `id`, `contents` ("Title" and text on two lines)
    r1-searcher  a line a row: id, tab, `Title: … Text: …`, where needed in CSV quotes; or id, tab, title and text three
                 blanks apart
    kilt         a line a page: `wikipedia_title` and a list of paragraphs, cut here into passages of 100 words
    hotpotqa     a line a page: `id`, `title` and a list of sentences
    hipporag     one JSON array of `title` and `text`
    parquet      columns `id`, `title`, `text`, or `id`, `contents`
"""

import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError

KILT_WORDS = 100


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is no passage: where it stands (line, or place in an array, from 1), why, and how it begins."""

    line: int
    reason: str
    row: str


Items = Iterator[Passage | BadRow]


def _passage(id_: object, title: object, text: object) -> Passage:
    """Raises `ValueError` for anything that is not a passage."""
    if isinstance(id_, bool) or not isinstance(id_, (str, int)) or id_ == "":
        raise ValueError("the id is missing" if id_ in (None, "") else "the id is neither text nor a whole number")
    if title is not None and not isinstance(title, str):
        raise ValueError("the title is not text")
    if not isinstance(text, str):
        raise ValueError("the text is missing" if text is None else "the text is not text")
    passage = Passage(str(id_), (title or "").strip(), text.strip())
    if not passage.title and not passage.text:
        raise ValueError("title and text are empty")
    if not (passage.text.isascii() and passage.title.isascii() and passage.id.isascii()):
        for part in (passage.id, passage.title, passage.text):
            try:
                part.encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"half a character (a lone surrogate) stands at place {error.start}") from error
    return passage


def _contents(row: Mapping[str, Any]) -> Passage:
    contents = row["contents"]
    if not isinstance(contents, str):
        raise ValueError("`contents` is not text")
    title, newline, text = contents.partition("\n")
    if not newline:
        return _passage(row.get("id"), "", contents)
    if len(title) > 1 and title[0] == title[-1] == '"':
        title = title[1:-1]
    return _passage(row.get("id"), title, text)


def _json_row(row: Mapping[str, Any], number: int) -> Iterable[Passage]:
    return (_contents(row) if "contents" in row else _passage(row.get("id"), row.get("title"), row.get("text")),)


def _hipporag_row(row: Mapping[str, Any], number: int) -> Iterator[Passage]:
    yield _passage(row.get("idx", row.get("id", number - 1)), row.get("title"), row.get("text"))


def _hotpotqa_row(row: Mapping[str, Any], number: int) -> Iterator[Passage]:
    text = row.get("text")
    if isinstance(text, list) and all(isinstance(part, list) for part in text):
        text = [sentence for paragraph in text for sentence in [*paragraph, " "]]
    if not isinstance(text, list) or not all(isinstance(sentence, str) for sentence in text):
        raise ValueError("`text` is not a list of sentences")
    yield _passage(row.get("id"), row.get("title"), "".join(text))


_KILT_MARK = re.compile(r"Section::::|BULLET::::")


def _kilt_row(row: Mapping[str, Any], number: int) -> Iterator[Passage]:
    title, paragraphs = row.get("wikipedia_title"), row.get("text")
    if not isinstance(paragraphs, list) or not all(isinstance(paragraph, str) for paragraph in paragraphs):
        raise ValueError("`text` is not a list of paragraphs")
    page = row.get("wikipedia_id", row.get("_id", number - 1))
    words = _KILT_MARK.sub("", " ".join(paragraphs)).split()
    # All of a page is read before any of it is handed on: a page is taken or rejected whole.
    yield from [
        _passage(f"{page}-{start // KILT_WORDS}", title, " ".join(words[start : start + KILT_WORDS]))
        for start in range(0, len(words) or 1, KILT_WORDS)
    ]


def _json_lines(rows: Callable[[Mapping[str, Any], int], Iterable[Passage]]) -> Callable[[IO[bytes]], Items]:
    def read(file: IO[bytes]) -> Items:
        for number, line in enumerate(file, 1):
            if line.isspace():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
                if not isinstance(row, dict):
                    raise ValueError("the row is not a JSON object")
                yield from rows(row, number)
            except (ValueError, RecursionError) as error:
                yield BadRow(number, _reason(error), _excerpt(line))

    return read


def _reason(error: BaseException) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} at character {error.pos + 1}"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 at byte {error.start + 1}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return str(error)


def _excerpt(row: bytes) -> str:
    return row[:200].decode("utf-8", "replace").strip()


def _r1_searcher(file: IO[bytes]) -> Items:
    """Line by line. A quoted field may hold line ends: it goes on until its quotes are even, but never into a line that
    begins a row of its own, so that one stray quote costs one row and not the rest of the file."""
    row: list[bytes] = []
    first, quotes = 0, 0
    for number, line in enumerate(file, 1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if row and _ROW_START.match(line):
            yield _tsv_row(row, first)
            row = []
        if not row:
            if not line.strip():
                continue
            first, quotes = number, 0
        row.append(line)
        quotes += line.count(b'"')
        if quotes % 2 == 0 or b'\t"Title:' not in row[0]:
            yield _tsv_row(row, first)
            row = []
    if row:
        yield _tsv_row(row, first)


_ROW_START = re.compile(rb"[^\t\s\"]+\t")
_TITLE_TEXT = re.compile(r"Title:(.*?)\sText:(.*)", re.DOTALL)


def _tsv_row(lines: list[bytes], number: int) -> Passage | BadRow:
    raw = b"".join(lines)
    try:
        id_, tab, body = raw.decode().rstrip("\r\n").partition("\t")
        if not tab:
            raise ValueError("no tab stands behind the id")
        if len(body) > 1 and body[0] == body[-1] == '"' and '"' not in (inner := body[1:-1]).replace('""', ""):
            body = inner.replace('""', '"')
        elif body.startswith('"Title:'):
            raise ValueError("a quote is opened and not closed, or not doubled inside")
        if match := _TITLE_TEXT.fullmatch(body):
            return _passage(id_.strip(), *match.groups())
        title, blanks, text = body.partition("   ")
        if not blanks or body.startswith("Title:"):
            raise ValueError("neither `Title: … Text: …` nor a title and a text three blanks apart")
        return _passage(id_.strip(), title, text)
    except ValueError as error:
        return BadRow(number, _reason(error), _excerpt(raw))


def _hipporag(file: IO[bytes]) -> Items:
    """The elements of one JSON array, read piece by piece: the array may be larger than memory."""
    window = _Window(file)
    if window.next_character() != "[":
        yield BadRow(1, "the file is not a JSON array", window.excerpt())
        return
    window.skip(1)
    number = 0
    while window.next_character() != "]":
        number += 1
        excerpt = window.excerpt()
        try:
            row = window.take_json()
        except (ValueError, RecursionError) as error:
            yield BadRow(number, f"{_reason(error)}; the array cannot be read from here on", excerpt)
            return
        try:
            if not isinstance(row, dict):
                raise ValueError("the element is not a JSON object")
            yield from _hipporag_row(row, number)
        except ValueError as error:
            yield BadRow(number, str(error), excerpt)
        if window.next_character() == ",":
            window.skip(1)
        elif window.next_character() != "]":
            yield BadRow(number + 1, "a comma or the array's end is missing here", window.excerpt())
            return
    window.skip(1)
    if window.next_character():
        yield BadRow(number + 1, "something follows the end of the array", window.excerpt())


class _Window:
    """The part of a UTF-8 text that is in memory. Bytes that are not UTF-8 become lone surrogates, which no passage may
    hold, so that they are rejected with their row."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._json = json.JSONDecoder()
        self._text = ""
        self._ended = False

    def _more(self) -> None:
        piece = self._file.read(1 << 18)
        self._ended = not piece
        self._text += self._utf8.decode(piece, final=self._ended)

    def next_character(self) -> str:
        """The next character that is no blank; empty at the end."""
        self._text = self._text.lstrip()
        while not self._text and not self._ended:
            self._more()
            self._text = self._text.lstrip()
        return self._text[:1]

    def skip(self, characters: int) -> None:
        self._text = self._text[characters:]

    def excerpt(self) -> str:
        return self._text[:200].encode("utf-8", "replace").decode()

    def take_json(self) -> Any:
        """The next value. Raises `ValueError` where there is none."""
        while True:
            try:
                value, end = self._json.raw_decode(self._text)
            except json.JSONDecodeError:
                if self._ended:
                    raise
            else:
                if end < len(self._text) or self._ended:  # a number at the very end could go on
                    self.skip(end)
                    return value
            size = len(self._text)
            while len(self._text) <= 2 * size and not self._ended:  # doubling keeps a long value linear
                self._more()


def _parquet(file: IO[bytes]) -> Items:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise InputError('Reading Parquet needs pyarrow: pip install "r1searcher[parquet]".') from error
    try:
        table = parquet.ParquetFile(file)
        names = [name for name in ("id", "title", "text", "contents") if name in table.schema_arrow.names]
        number = 0
        for batch in table.iter_batches(batch_size=4096, columns=names):
            for row in batch.to_pylist():
                number += 1
                try:
                    yield from _json_row(row, number)
                except ValueError as error:
                    yield BadRow(number, str(error), repr(row)[:200])
    except (arrow.ArrowException, OSError) as error:
        raise OSError(str(error)) from error


FORMATS: Mapping[str, Callable[[IO[bytes]], Items]] = {
    "jsonl": _json_lines(_json_row),
    "r1-searcher": _r1_searcher,
    "kilt": _json_lines(_kilt_row),
    "hotpotqa": _json_lines(_hotpotqa_row),
    "hipporag": _hipporag,
    "parquet": _parquet,
}


def recognise(start: bytes) -> str | None:
    """The format of a file by its first bytes (64 KiB, or all of a shorter file); None where it is none of ours.

    >>> recognise(b'{"id": 1, "contents": "Oslo"}')
    'jsonl'
    """
    if start.startswith(b"PAR1"):
        return "parquet"
    start = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"["):
        return "hipporag"
    lines = [line for line in start.split(b"\n", 20)[:20] if line.strip()]
    for line in lines:
        if line.startswith(b"{"):
            return _json_format(line)
    if any(re.match(rb"[^\t]{1,100}\t\S", line) for line in lines):
        return "r1-searcher"
    return None


def _json_format(line: bytes) -> str:
    """Told by keys and not by parsing: a page may be longer than what was read."""
    if b'"wikipedia_title"' in line:
        return "kilt"
    return "hotpotqa" if re.search(rb'"text"\s*:\s*\[', line) and b'"title"' in line else "jsonl"
