"""KILT's knowledge source: an object per page, split here into passages of 100 words."""

import re
from collections.abc import Iterator

from r1searcher.corpora.formats import CorpusFormat
from r1searcher.corpora.json_rows import Row, json_reader
from r1searcher.corpora.passage import Passage, make_passage

WORDS = 100
_MARK = re.compile(r"Section::::|BULLET::::")


def passages_of(row: Row, number: int) -> Iterator[Passage]:
    title, paragraphs = row.get("wikipedia_title"), row.get("text")
    if not isinstance(paragraphs, list) or not all(isinstance(paragraph, str) for paragraph in paragraphs):
        raise ValueError("`text` is not a list of paragraphs")
    page = row.get("wikipedia_id", row.get("_id", number - 1))
    words = _MARK.sub("", " ".join(paragraphs)).split()
    # A whole page is read before any of it is yielded: a page is accepted or rejected as a whole.
    yield from [
        make_passage(f"{page}-{start // WORDS}", title, " ".join(words[start : start + WORDS]))
        for start in range(0, len(words) or 1, WORDS)
    ]


FORMAT = CorpusFormat(
    json_reader(passages_of),
    "KILT's knowledge source: a page per line, cut into passages of 100 words as R1-Searcher cut them",
    lambda sample: {"wikipedia_title", "text"} <= sample.keys.keys(),
)
