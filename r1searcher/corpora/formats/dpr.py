"""DPR's `psgs_w100.tsv`: columns by the names of the header line."""

import csv
from typing import IO

from r1searcher.common.files import json_problem
from r1searcher.corpora.detect import Sample
from r1searcher.corpora.formats import CorpusFormat
from r1searcher.corpora.passage import make_passage
from r1searcher.corpora.rows import MAX_ROW_BYTES, BadRow, BrokenFileError, Items, excerpt, lines, quoted_lines


def read(file: IO[bytes], before: int = 0, /) -> Items:
    _, header = next(lines(file), (1, b""))
    names = header.decode("utf-8", "replace").strip().split("\t") if isinstance(header, bytes) else []
    if not {"id", "text"} <= set(names):
        raise BrokenFileError("line 1 is not a header with the columns id and text")
    for number, row in quoted_lines(file, b'\t"'):
        if isinstance(row, BadRow):
            yield BadRow(number + 1, row.reason, row.row)
            continue
        try:
            fields = _fields(row.decode().rstrip("\r\n"))
            if len(fields) != len(names):
                raise ValueError(f"{len(fields)} columns, and the header has {len(names)}")
            columns = dict(zip(names, fields, strict=True))
            yield make_passage(columns["id"], columns.get("title"), columns["text"])
        except csv.Error:
            yield BadRow(number + 1, "a quote is opened and not closed, or not doubled inside", excerpt(row))
        except ValueError as error:
            yield BadRow(number + 1, json_problem(error), excerpt(row))


def _fields(line: str) -> list[str]:
    before = csv.field_size_limit(MAX_ROW_BYTES)  # csv's own limit is 128 KB, for the whole process
    try:
        (fields,) = csv.reader([line], delimiter="\t", strict=True)
    finally:
        csv.field_size_limit(before)
    return fields


def _detects(sample: Sample) -> bool:
    return not sample.is_json and bool(sample.lines) and {"id", "text"} <= set(sample.header)


FORMAT = CorpusFormat(
    read,
    "a tab-separated table whose header names `id`, `text` and, if there is one, `title`; CSV quotes",
    _detects,
)
