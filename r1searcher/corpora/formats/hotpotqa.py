"""HotpotQA's abstracts: an object per page, with a list of sentences."""

from collections.abc import Iterator

from r1searcher.corpora.detect import Sample
from r1searcher.corpora.formats import CorpusFormat
from r1searcher.corpora.json_rows import Row, id_of, json_reader
from r1searcher.corpora.passage import Passage, make_passage


def passages_of(row: Row, number: int) -> Iterator[Passage]:
    text = row.get("text", row.get("sentences"))
    if isinstance(text, list) and all(isinstance(part, list) for part in text):
        text = [sentence for paragraph in text for sentence in [*paragraph, " "]]
    if not isinstance(text, list) or not all(isinstance(sentence, str) for sentence in text):
        raise ValueError("`text` is not a list of sentences")
    yield make_passage(id_of(row), row.get("title"), "".join(text))


def _detects(sample: Sample) -> bool:
    keys = sample.keys
    return "title" in keys and "[" in (keys.get("text"), keys.get("sentences")) and not sample.problem


FORMAT = CorpusFormat(
    json_reader(passages_of), "HotpotQA's abstracts: objects of `id`, `title` and a list of sentences", _detects
)
