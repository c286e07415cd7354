"""The reader of questions. The caller decides how bad rows are handled."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from r1searcher.common.files import read_bytes
from r1searcher.errors import InputError
from r1searcher.questions.formats import WHAT_WORKS, Unreadable, rows_in
from r1searcher.questions.question import Question
from r1searcher.questions.rows import kind_of, question_of, row_of


@dataclass(frozen=True, slots=True)
class Questions:
    """Questions in their order. `sha256` is that of their file, or of the questions if they come from a function.
    `refused` says why rows were skipped, one clause each."""

    questions: tuple[Question, ...]
    sha256: str
    refused: tuple[str, ...] = ()


def read_question_file(file: Path, *, limit: int | None = None, strict: bool) -> Questions:
    """Questions of JSON Lines, a JSON array, Parquet or a table, in the row shapes that `rows` lists.

    `strict` rejects a file with a bad row, naming its line, and reads at most `limit` questions; otherwise bad rows are
    skipped and listed in `refused`. Raises `InputError` for that, for a file that cannot be read, and for one without
    questions: if its actual content is recognized, the message names it.
    """
    data = read_bytes(file, "the question file")
    source = f"the question file {file}"
    questions, refused = _read(rows_in(file, data), source, limit if strict else None, file if strict else None)
    return Questions(tuple(islice(questions, limit)), hashlib.sha256(data).hexdigest(), tuple(refused))


def read_question_rows(rows: Iterable[Any], source: str, *, limit: int | None = None) -> Questions:
    """Questions of rows in memory: `Question`s, or mappings in the shapes that `rows` lists; at most `limit`.

    Bad rows are skipped and listed in `refused`. `source` names the origin of the rows in the `InputError` for rows
    without questions.
    """
    questions, refused = _read(enumerate(rows, 1), source, limit)
    digest = hashlib.sha256(json.dumps([asdict(question) for question in questions]).encode())
    return Questions(tuple(questions), digest.hexdigest(), tuple(refused))


def _read(
    rows: Iterable[tuple[int, Any]], source: str, limit: int | None, strict: Path | None = None
) -> tuple[list[Question], list[str]]:
    """Questions, and why rows were skipped. `strict` is the file in which no row may be bad."""
    questions: list[Question] = []
    refused: list[str] = []
    kind: str | None = None
    for number, row in rows:
        if len(questions) == limit:
            break
        try:
            questions.append(_question(row, number))
        except ValueError as error:
            kind = kind or kind_of(row)
            if strict and (questions or kind is None):
                raise InputError(f"{strict}:{number}: {error}") from None
            refused.append(f"line {number}: {error}")
            if strict:
                break
    if not questions:
        raise InputError(_nothing(source, kind, refused))
    return questions, refused


def _question(row: Any, number: int) -> Question:
    if isinstance(row, Question):  # of another package: checked like any other row
        row = row_of(row)
    if isinstance(row, Unreadable):
        raise ValueError(row.reason)
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    return question_of(row, default_id=str(number))


def _nothing(source: str, kind: str | None, refused: list[str]) -> str:
    if kind:
        return f"{source} holds {kind}, see {refused[0]}; {WHAT_WORKS}"
    if refused:
        return f"{source} does not contain a question that can be scored ({refused[0]}); {WHAT_WORKS}"
    return f"{source} is empty; {WHAT_WORKS}"
