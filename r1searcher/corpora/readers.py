"""Corpus files -> `Passage` rows."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError


def read_passages(path: Path) -> Iterator[Passage]:
    """The passages of a JSONL file: rows of `id`, `title`, `text`, or Search-R1's `id`, `contents`.

    Raises `InputError` with the line of the first row that is neither.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    try:
                        yield passage_of(json.loads(line))
                    except ValueError as error:
                        raise InputError(f"{path}, line {number}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def passage_of(row: Any) -> Passage:
    """Raises `ValueError` with what is missing.

    >>> passage_of({"id": 7, "contents": '"Oslo"\\nThe capital of Norway.'})
    Passage(id='7', title='Oslo', text='The capital of Norway.')
    """
    if not isinstance(row, dict):
        raise ValueError("a row must be a JSON object")
    if "id" not in row:
        raise ValueError("the key `id` is missing")
    if isinstance(row.get("contents"), str):
        title, _, text = row["contents"].partition("\n")
        return Passage(str(row["id"]), title.strip('"'), text)
    if not isinstance(row.get("text"), str):
        raise ValueError("the key `text` (or `contents`) is missing")
    return Passage(str(row["id"]), str(row.get("title") or ""), row["text"])
