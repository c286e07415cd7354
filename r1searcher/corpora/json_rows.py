"""Passages from rows that are JSON objects, on lines or in one array."""

from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any

from r1searcher.common.files import json_problem
from r1searcher.corpora.formats import Reader
from r1searcher.corpora.passage import Passage
from r1searcher.corpora.rows import BadRow, Items, json_values

ID_KEYS = ("id", "_id", "docid")

Row = Mapping[str, Any]
PassagesOf = Callable[[Row, int], Iterable[Passage]]
"""A JSON object and its number from 1 over the whole corpus -> its passages. Raises `ValueError` with the reason."""


def json_reader(passages_of: PassagesOf) -> Reader:
    """The reader of a format whose rows are JSON objects."""

    def read(file: IO[bytes], before: int = 0, /) -> Items:
        for number, row, begin in json_values(file):
            if isinstance(row, BadRow):
                yield row
                continue
            try:
                if not isinstance(row, dict):
                    raise ValueError("the row is not a JSON object")
                yield from passages_of(row, before + number)
            except ValueError as error:
                yield BadRow(number, json_problem(error), begin)

    return read


def id_of(row: Row, otherwise: object = None) -> object:
    """The row's own id, under any of its usual names."""
    return next((row[key] for key in ID_KEYS if row.get(key) is not None), otherwise)
