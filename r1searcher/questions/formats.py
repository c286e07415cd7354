"""Files of questions as rows: JSON Lines, a JSON array, Parquet, or a table (DPR's, or one with a header)."""

import ast
import csv
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1searcher.common.files import decode, parse_json, split_lines
from r1searcher.errors import InputError
from r1searcher.questions.rows import COLUMNS, GOLD_KEYS


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row that could not be read at all, and why."""

    reason: str


Rows = Iterator[tuple[int, Any | Unreadable]]
"""(line, or index in an array or Parquet file, from 1; the row as JSON values)"""

_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\x28\xb5\x2f\xfd": "unzstd", b"PK\x03\x04": "unzip"}


def rows_in(file: Path, data: bytes) -> Rows:
    """The rows of a file's content, lazily if the format allows it.

    Raises `InputError` for content in none of the formats, for a truncated array and for damaged Parquet.
    """
    if data.startswith(b"PAR1"):
        return _parquet(file, data)
    for magic, tool in _COMPRESSED.items():
        if data.startswith(magic):
            raise InputError(f"the question file {file} is compressed: unpack it first ({tool})")
    text = decode(data, file, "the question file")
    if re.match(r"\s*[\[{]", text) or re.search(r"\n\s*\{", text):
        return _json(file, text)
    return _table(file, text)


def _json(file: Path, text: str) -> Rows:
    """JSON Lines if the first line is a complete value, otherwise one JSON value."""
    lines = [(number, line) for number, line in enumerate(split_lines(text), 1) if line.strip()]
    first = _parsed(lines[0][1])
    if isinstance(first, Unreadable) or (len(lines) == 1 and (isinstance(first, list) or _wrapped(first))):
        whole = first if len(lines) == 1 else _parsed(text)
        if isinstance(whole, list):
            return enumerate(whole, 1)
        if isinstance(whole, Mapping):
            return enumerate(_wrapped(whole) or [whole], 1)
        if isinstance(whole, Unreadable) and text.lstrip().startswith("["):
            raise InputError(f"the question file {file} is not a complete JSON array: {whole.reason}")
    return ((number, _parsed(line)) for number, line in lines)


def _parsed(text: str) -> Any | Unreadable:
    try:
        return parse_json(text)
    except ValueError as error:
        return Unreadable(str(error))


def _wrapped(value: Any) -> list[Any]:
    """The rows of TriviaQA's `{"Data": […]}` and its like; empty for any other value."""
    if isinstance(value, Mapping) and "question" not in value:
        for key in ("Data", "data", "questions", "Questions"):
            if isinstance(value.get(key), list):
                rows: list[Any] = value[key]
                return rows
    return []


def _table(file: Path, text: str) -> Rows:
    """Rows of tab- or comma-separated values with a header, or DPR's: a question, a tab, a list of answers."""
    start = next((line for line in split_lines(text) if line.strip()), "")
    if not start:
        return iter(())
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if "\t" in start else ",")
    rows = _cells(reader)
    number, cells = next(rows)
    header = [cell.strip().lower() for cell in cells] if not isinstance(cells, Unreadable) else []
    if {"question", "query-id", "corpus-id"} & set(header) or {"id", "text", "title"} <= set(header):
        return ((line, _titled(header, row)) for line, row in rows)
    if "\t" in start and len(header) == 2 and not isinstance(_dpr(cells), Unreadable):
        return ((line, _dpr(row)) for line, row in _with(number, cells, rows))
    raise InputError(f"the question file {file} holds {_table_kind(start)}; {WHAT_WORKS}")


WHAT_WORKS = (
    "give JSON Lines, a JSON array or Parquet whose rows have `question` and `answer` or `golden_answers`, or a table "
    "of questions and answers (see docs/evaluation.md)"
)


def _with(number: int, cells: Any, rows: Rows) -> Rows:
    yield number, cells
    yield from rows


def _cells(reader: Any) -> Rows:
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num, Unreadable(f"not a row of a table: {error}")
            continue
        if any(cell.strip() for cell in cells):
            yield reader.line_num, cells


def _titled(header: list[str], cells: Any) -> Any | Unreadable:
    if isinstance(cells, Unreadable):
        return cells
    if len(cells) != len(header):
        return Unreadable(f"{len(cells)} columns under a header of {len(header)}")
    row: dict[str, Any] = dict(zip(header, cells, strict=True))
    for key in GOLD_KEYS:  # the only way to write several answers in a table
        if isinstance(answers := _list_in(row.get(key, "")), list):
            row[key] = answers
    return row


def _dpr(cells: Any) -> Any | Unreadable:
    if isinstance(cells, Unreadable):
        return cells
    answers = _list_in(cells[1]) if len(cells) == 2 else None
    if answers is None:
        return Unreadable("not a question, a tab and a list of answers")
    return {"question": cells[0], "answers": answers}


def _list_in(text: str) -> list[Any] | None:
    """The list written in a text, as JSON or as Python (in DPR's files)."""
    if not text.lstrip().startswith("["):
        return None
    try:
        value = parse_json(text)
    except ValueError:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of invalid escapes, which Python reads unchanged
                value = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return None
    return value if isinstance(value, list) else None


def _table_kind(line: str) -> str:
    """The content of a text file without questions, judged by its first line."""
    cells = line.rstrip("\r").split("\t")
    if re.fullmatch(r"\S+\s+\S+(\s+\S+)?\s+-?\d+\s*", line):
        return "relevance judgments (qrels), which have no answers"
    if len(cells) > 1 and (cells[1].lstrip('"').startswith("Title:") or len(cells[-1].split()) > 20):
        return "passages, not questions (a corpus: index it with `r1s index-corpus`)"
    return "no rows of questions and answers"


def _parquet(file: Path, data: bytes) -> Rows:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise InputError(f'{file}: reading Parquet needs pyarrow: pip install "r1searcher[parquet]"') from None
    number = 0
    try:
        table = parquet.ParquetFile(io.BytesIO(data))
        names = table.schema_arrow.names
        for batch in table.iter_batches(batch_size=4096, columns=[name for name in names if name in COLUMNS] or names):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (arrow.ArrowException, OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"the question file {file} is damaged after row {number} ({reason}): replace it") from None
