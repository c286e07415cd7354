"""R1-Searcher's corpora: a row per line, `Title: … Text: …` after the id and a tab, in CSV quotes where needed."""

import re
from typing import IO

from r1searcher.common.files import json_problem
from r1searcher.corpora.detect import Sample
from r1searcher.corpora.formats import CorpusFormat
from r1searcher.corpora.passage import Passage, make_passage
from r1searcher.corpora.rows import BadRow, Items, excerpt, quoted_lines

_TITLE_TEXT = re.compile(r"Title:(.*?)\sText:(.*)", re.DOTALL)


def read(file: IO[bytes], before: int = 0, /) -> Items:
    for number, row in quoted_lines(file, b'\t"Title:'):
        yield row if isinstance(row, BadRow) else _item(row, number)


def _item(raw: bytes, number: int) -> Passage | BadRow:
    try:
        id_, tab, body = raw.decode().rstrip("\r\n").partition("\t")
        if not tab:
            raise ValueError("there is no tab after the id")
        if len(body) > 1 and body[0] == body[-1] == '"' and '"' not in (inner := body[1:-1]).replace('""', ""):
            body = inner.replace('""', '"')
        elif body.startswith('"Title:'):
            raise ValueError("a quote is opened and not closed, or not doubled inside")
        if match := _TITLE_TEXT.fullmatch(body):
            return make_passage(id_.strip(), *match.groups())
        title, spaces, text = body.partition("   ")
        if not spaces or body.startswith("Title:"):
            raise ValueError("neither `Title: … Text: …` nor a title and a text separated by three spaces")
        return make_passage(id_.strip(), title, text)
    except ValueError as error:
        return BadRow(number, json_problem(error), excerpt(raw))


def _detects(sample: Sample) -> bool:
    if sample.is_json or sample.problem:
        return False
    return any(re.match(r"[^\t]{1,100}\t\S", line) for line in sample.lines)


FORMAT = CorpusFormat(
    read,
    "`id<TAB>Title: … Text: …`, in CSV quotes where needed; or `id<TAB>title`, three spaces, text",
    _detects,
)
