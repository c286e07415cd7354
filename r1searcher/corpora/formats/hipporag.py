"""HippoRAG's corpora: one array of objects, numbered by their index if they do not have an id."""

from collections.abc import Iterator

from r1searcher.corpora.formats import CorpusFormat
from r1searcher.corpora.json_rows import Row, id_of, json_reader
from r1searcher.corpora.passage import Passage, make_passage


def passages_of(row: Row, number: int) -> Iterator[Passage]:
    yield make_passage(row.get("idx", id_of(row, number - 1)), row.get("title"), row.get("text"))


FORMAT = CorpusFormat(
    json_reader(passages_of),
    "one JSON array of `title`, `text`, numbered from 0 where there is no id",
    lambda sample: sample.is_array and not sample.problem,
)
