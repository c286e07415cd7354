"""Questions with gold answers, read from the rows that people have."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r1searcher.errors import InputError


@dataclass(frozen=True, slots=True)
class Question:
    """`golds` holds every answer that counts, at least one. `hops` is 0 where the data doesn't say."""

    id: str
    text: str
    golds: tuple[str, ...]
    hops: int = field(default=0)


def read_questions(file: Path, limit: int | None = None) -> list[Question]:
    """Questions of a JSONL file in its order.

    Rows of R1-Searcher (`idx`, `question`, `answer`), Search-R1 (`prompt`, `reward_model.ground_truth`), FlashRAG
    (`id`, `question`, `golden_answers`) and our own (`id`, `question`, `golds`, `hops`). Raises `InputError` for a
    missing or empty file and for the first row that holds no question or no gold, by its line.
    """
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except FileNotFoundError:
        raise InputError(f"there is no question file {file}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the question file {file} can't be read: {error}") from None
    questions = list(_parse(file, lines, limit))
    if not questions:
        raise InputError(f"the question file {file} holds no question")
    return questions


def _parse(file: Path, lines: list[str], limit: int | None) -> Iterator[Question]:
    taken = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if taken == limit:
            return
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{file}:{number} is not JSON: {error.msg}") from None
        if not isinstance(row, dict):
            raise InputError(f"{file}:{number} is not a JSON object")
        try:
            yield question_of(row, default_id=str(number))
        except ValueError as error:
            raise InputError(f"{file}:{number}: {error}") from None
        taken += 1


def question_of(row: Mapping[str, Any], default_id: str) -> Question:
    """One row of any of the known formats. Raises `ValueError` saying what is missing."""
    text = row.get("question")
    if text is None and isinstance(row.get("prompt"), list) and row["prompt"]:
        text = row["prompt"][-1].get("content")
    if not isinstance(text, str) or not text.strip():
        raise ValueError("the row has no `question` (or Search-R1 `prompt`)")
    golds: Any = None
    for key in ("golds", "golden_answers", "answers", "answer"):
        if row.get(key) not in (None, "", []):
            golds = row[key]
            break
    if golds is None and isinstance(row.get("reward_model"), dict):
        golds = row["reward_model"].get("ground_truth")
        if isinstance(golds, dict):
            golds = golds.get("target")
    values = golds if isinstance(golds, list) else [golds]
    answers = tuple(str(value) for value in values if value is not None and str(value).strip())
    if not answers:
        raise ValueError("the row has no gold answer (`answer`, `golden_answers`, `golds` or `reward_model`)")
    identity = next((str(row[key]) for key in ("id", "idx", "_id") if row.get(key) is not None), default_id)
    hops = row.get("hops")
    return Question(identity, text.strip(), answers, hops if isinstance(hops, int) else 0)
