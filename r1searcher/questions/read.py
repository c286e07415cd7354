"""The one reader of question files. What it does about a bad row is the caller's policy."""

import hashlib
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from r1searcher.common.files import read_bytes
from r1searcher.errors import InputError
from r1searcher.questions.formats import WHAT_WORKS, Unreadable, rows_in
from r1searcher.questions.question import Question
from r1searcher.questions.rows import kind_of, question_of


@dataclass(frozen=True, slots=True)
class QuestionFile:
    """Questions in the file's order. `sha256` is the file's; `refused` says why rows were left out, a clause each."""

    questions: tuple[Question, ...]
    sha256: str
    refused: tuple[str, ...] = ()


def read_questions(file: Path, limit: int | None = None) -> list[Question]:
    """All questions of a file, or the first `limit`. See `read_question_file`, whose strict policy this is."""
    return list(read_question_file(file, limit=limit, strict=True).questions)


def read_question_file(file: Path, *, limit: int | None = None, strict: bool) -> QuestionFile:
    """Questions of JSON Lines, a JSON array, Parquet or a table, in the row shapes that `rows` lists.

    `strict` refuses a file with a bad row, by its line, and reads no further than `limit` questions; otherwise bad rows
    are left out and told in `refused`. Raises `InputError` for that, for a file that cannot be read, and for one
    without a question: where what it holds instead is known, the sentence says what that is.
    """
    data = read_bytes(file, "the question file")
    questions: list[Question] = []
    refused: list[str] = []
    kind: str | None = None
    for number, row in rows_in(file, data):
        if strict and len(questions) == limit:
            break
        try:
            questions.append(_question(row, number))
        except ValueError as error:
            kind = kind or kind_of(row)
            if strict and (questions or kind is None):
                raise InputError(f"{file}:{number}: {error}") from None
            refused.append(f"line {number}: {error}")
            if strict:
                break
    if not questions:
        raise InputError(_nothing(file, kind, refused))
    return QuestionFile(tuple(islice(questions, limit)), hashlib.sha256(data).hexdigest(), tuple(refused))


def _question(row: Any, number: int) -> Question:
    if isinstance(row, Unreadable):
        raise ValueError(row.reason)
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    return question_of(row, default_id=str(number))


def _nothing(file: Path, kind: str | None, refused: list[str]) -> str:
    if kind:
        return f"the question file {file} holds {kind}, see {refused[0]}; {WHAT_WORKS}"
    if refused:
        return f"the question file {file} holds no question that can be scored ({refused[0]}); {WHAT_WORKS}"
    return f"the question file {file} is empty; {WHAT_WORKS}"
