"""The shapes in which people keep passages, and how each becomes `Passage` rows.

A *format* turns one file's content into items: `Passage`s, and `BadRow`s for what it could not read. Every row of the
file becomes one or the other; none is guessed at. JSON formats are read as lines and as one array alike.

    jsonl        objects of `id`, `title`, `text` (BEIR's `_id`, Tevatron's `docid`), or Search-R1's `id`, `contents`
                 ("Title" and text on two lines)
    r1-searcher  a line per row: id, tab, `Title: … Text: …`, where needed in CSV quotes; or id, tab, title and text
                 separated by three spaces
    dpr          tab-separated with a header that names `id`, `text` and, if there is one, `title`, in CSV quotes
    kilt         an object per page: `wikipedia_title` and a list of paragraphs, cut here into passages of 100 words
    hotpotqa     an object per page: `id`, `title` and a list of sentences
    hipporag     objects of `title` and `text`, numbered by their place where they have no id
    paragraphs   questions that carry their paragraphs: HotpotQA's and 2WikiMultihopQA's `context`, MuSiQue's
                 `paragraphs`; each paragraph once, whatever the number of questions that share it
    parquet      a table with the columns of `jsonl` or `paragraphs`
"""

import csv
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any, Protocol

from r1searcher.common.files import json_problem
from r1searcher.corpora.passage import Passage
from r1searcher.corpora.rows import (
    MAX_ROW_BYTES,
    TOO_LONG,
    BadRow,
    BrokenFileError,
    Items,
    excerpt,
    json_values,
    lines,
    quoted_lines,
)
from r1searcher.errors import InputError

__all__ = ["FORMATS", "PARAGRAPHS", "BadRow", "BrokenFileError", "Items", "has_paragraphs"]

KILT_WORDS = 100
PARAGRAPHS = "paragraphs"
ID_KEYS = ("id", "_id", "docid")

Row = Mapping[str, Any]
Rows = Callable[[Row, int], Iterable[Passage]]
"""A JSON object and its number from 1 over the whole corpus -> its passages. Raises `ValueError` with the reason."""


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


def _id(row: Row, otherwise: object = None) -> object:
    return next((row[key] for key in ID_KEYS if row.get(key) is not None), otherwise)


def _contents(row: Row) -> Passage:
    contents = row["contents"]
    if not isinstance(contents, str):
        raise ValueError("`contents` is not text")
    title, newline, text = contents.partition("\n")
    if not newline:
        return _passage(_id(row), row.get("title"), contents)
    if len(title) > 1 and title[0] == title[-1] == '"':
        title = title[1:-1]
    return _passage(_id(row), title, text)


def _json_row(row: Row, number: int) -> Iterable[Passage]:
    contents = "contents" in row and row.get("text") is None
    return (_contents(row) if contents else _passage(_id(row), row.get("title"), row.get("text")),)


def _hipporag_row(row: Row, number: int) -> Iterator[Passage]:
    yield _passage(row.get("idx", _id(row, number - 1)), row.get("title"), row.get("text"))


def _hotpotqa_row(row: Row, number: int) -> Iterator[Passage]:
    text = row.get("text", row.get("sentences"))
    if isinstance(text, list) and all(isinstance(part, list) for part in text):
        text = [sentence for paragraph in text for sentence in [*paragraph, " "]]
    if not isinstance(text, list) or not all(isinstance(sentence, str) for sentence in text):
        raise ValueError("`text` is not a list of sentences")
    yield _passage(_id(row), row.get("title"), "".join(text))


_KILT_MARK = re.compile(r"Section::::|BULLET::::")


def _kilt_row(row: Row, number: int) -> Iterator[Passage]:
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


def has_paragraphs(row: Row) -> bool:
    """Whether a question carries its paragraphs: `context` (also below FlashRAG's `metadata`), or `paragraphs`."""
    return isinstance(_carried(row), (list, dict))


def _carried(row: Row) -> object:
    if row.get("paragraphs") is not None:
        return row["paragraphs"]
    if row.get("context") is not None:
        return row["context"]
    return _carried(inner) if isinstance(inner := row.get("metadata"), dict) else None


def _paragraphs_row(row: Row, number: int) -> Iterator[Passage]:
    carried = _carried(row)
    if isinstance(carried, dict):  # Hugging Face's columns: titles in one list, sentences in another
        titles, texts = carried.get("title"), carried.get("sentences", carried.get("content"))
        if not isinstance(titles, list) or not isinstance(texts, list) or len(titles) != len(texts):
            raise ValueError("`context` does not hold one list of sentences per title")
        carried = [list(pair) for pair in zip(titles, texts, strict=True)]
    if not isinstance(carried, list):
        raise ValueError("the question carries no paragraphs: neither a list `context` nor a list `paragraphs`")
    yield from [_paragraph(entry) for entry in carried]


def _paragraph(entry: object) -> Passage:
    if isinstance(entry, dict):  # MuSiQue
        title, text = entry.get("title"), entry.get("paragraph_text")
    elif isinstance(entry, list) and len(entry) == 2:
        title, text = entry
    else:
        raise ValueError("a paragraph is neither [title, sentences] nor {title, paragraph_text}")
    if isinstance(text, list) and all(isinstance(sentence, str) for sentence in text):
        text = "".join(sentence if sentence[:1].isspace() else f" {sentence}" for sentence in text)
    passage = _passage("0", title, text)
    # The content decides the id: the same paragraph has one id in every question, and no two paragraphs share one.
    digest = hashlib.blake2b(f"{passage.title}\n{passage.text}".encode(), digest_size=8).digest()
    return Passage(str(int.from_bytes(digest)), passage.title, passage.text)


class Reader(Protocol):
    """`before` counts the rows of the corpus in earlier files: rows without an id are numbered through all of them."""

    def __call__(self, file: IO[bytes], before: int = 0, /) -> Items: ...


def _json(rows: Rows) -> Reader:
    def read(file: IO[bytes], before: int = 0, /) -> Items:
        for number, row, begin in json_values(file):
            if isinstance(row, BadRow):
                yield row
                continue
            try:
                if not isinstance(row, dict):
                    raise ValueError("the row is not a JSON object")
                yield from rows(row, before + number)
            except ValueError as error:
                yield BadRow(number, json_problem(error), begin)

    return read


def _r1_searcher(file: IO[bytes], before: int = 0, /) -> Items:
    for number, row in quoted_lines(file, b'\t"Title:'):
        yield row if isinstance(row, BadRow) else _tsv_row(row, number)


_TITLE_TEXT = re.compile(r"Title:(.*?)\sText:(.*)", re.DOTALL)


def _tsv_row(raw: bytes, number: int) -> Passage | BadRow:
    try:
        id_, tab, body = raw.decode().rstrip("\r\n").partition("\t")
        if not tab:
            raise ValueError("there is no tab after the id")
        if len(body) > 1 and body[0] == body[-1] == '"' and '"' not in (inner := body[1:-1]).replace('""', ""):
            body = inner.replace('""', '"')
        elif body.startswith('"Title:'):
            raise ValueError("a quote is opened and not closed, or not doubled inside")
        if match := _TITLE_TEXT.fullmatch(body):
            return _passage(id_.strip(), *match.groups())
        title, spaces, text = body.partition("   ")
        if not spaces or body.startswith("Title:"):
            raise ValueError("neither `Title: … Text: …` nor a title and a text separated by three spaces")
        return _passage(id_.strip(), title, text)
    except ValueError as error:
        return BadRow(number, json_problem(error), excerpt(raw))


def _dpr(file: IO[bytes], before: int = 0, /) -> Items:
    """DPR's `psgs_w100.tsv`: columns by the names of the header line."""
    _, header = next(lines(file), (1, b""))
    names = header.decode("utf-8", "replace").strip().split("\t") if isinstance(header, bytes) else []
    if not {"id", "text"} <= set(names):
        raise BrokenFileError("line 1 is not a header with the columns id and text")
    for number, row in quoted_lines(file, b'\t"'):
        if isinstance(row, BadRow):
            yield BadRow(number + 1, row.reason, row.row)
            continue
        try:
            fields = _tsv_fields(row.decode().rstrip("\r\n"))
            if len(fields) != len(names):
                raise ValueError(f"{len(fields)} columns, and the header has {len(names)}")
            columns = dict(zip(names, fields, strict=True))
            yield _passage(columns["id"], columns.get("title"), columns["text"])
        except csv.Error:
            yield BadRow(number + 1, "a quote is opened and not closed, or not doubled inside", excerpt(row))
        except ValueError as error:
            yield BadRow(number + 1, json_problem(error), excerpt(row))


def _tsv_fields(line: str) -> list[str]:
    before = csv.field_size_limit(MAX_ROW_BYTES)  # csv's own limit is 128 KB; it is one of the whole process
    try:
        (fields,) = csv.reader([line], delimiter="\t", strict=True)
    finally:
        csv.field_size_limit(before)
    return fields


_PARQUET_COLUMNS = (*ID_KEYS, "title", "text", "contents", "context", "paragraphs", "metadata")
_BATCH = 4096


def _parquet(file: IO[bytes], before: int = 0, /) -> Items:
    number = 0
    for batch in _parquet_batches(file):
        for row in batch:
            number += 1
            try:
                if sum(len(value) for value in row.values() if isinstance(value, str)) > MAX_ROW_BYTES:
                    raise ValueError(TOO_LONG)
                yield from (_paragraphs_row if has_paragraphs(row) else _json_row)(row, before + number)
            except ValueError as error:
                yield BadRow(number, json_problem(error), str({key: str(row[key])[:80] for key in row})[:200])


def _parquet_batches(file: IO[bytes]) -> Iterator[list[dict[str, Any]]]:
    """Rows in batches of bounded size. Raises `BrokenFileError` for a table that is damaged."""
    table = open_parquet(file)
    arrow_error, names = _arrow().ArrowException, table.schema_arrow.names
    if len(set(names)) < len(names):
        raise BrokenFileError("two columns have the same name")
    groups = [table.metadata.row_group(group) for group in range(table.metadata.num_row_groups)]
    widest = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=1.0)
    size = max(1, min(_BATCH, int(MAX_ROW_BYTES / max(widest, 1.0))))
    batches = table.iter_batches(batch_size=size, columns=[name for name in names if name in _PARQUET_COLUMNS])
    while True:
        try:
            batch = next(batches, None)
            rows = None if batch is None else batch.to_pylist()
        except (arrow_error, OSError, ValueError) as error:
            raise BrokenFileError(str(error).splitlines()[0] if str(error) else "the table is damaged") from error
        if rows is None:
            return
        yield rows


def open_parquet(file: IO[bytes]) -> Any:
    """A `pyarrow.parquet.ParquetFile`. Raises `BrokenFileError` for anything that is not a whole one."""
    arrow = _arrow()
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(file)
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise BrokenFileError(str(error).partition(".")[0]) from error


def _arrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise InputError('Reading Parquet needs pyarrow: pip install "r1searcher[parquet]".') from error
    return pyarrow


FORMATS: Mapping[str, Reader] = {
    "jsonl": _json(_json_row),
    "r1-searcher": _r1_searcher,
    "dpr": _dpr,
    "kilt": _json(_kilt_row),
    "hotpotqa": _json(_hotpotqa_row),
    "hipporag": _json(_hipporag_row),
    PARAGRAPHS: _json(_paragraphs_row),
    "parquet": _parquet,
}
