"""JSON objects of id, title and text, one per line or in one array."""

from collections.abc import Iterable

from r1searcher.corpora.detect import Sample
from r1searcher.corpora.formats import CorpusFormat
from r1searcher.corpora.json_rows import ID_KEYS, Row, id_of, json_reader
from r1searcher.corpora.passage import Passage, make_passage


def passages_of(row: Row, number: int) -> Iterable[Passage]:
    """The passage of a row. Raises `ValueError` with the reason why there is none."""
    if "contents" in row and row.get("text") is None:
        return (_from_contents(row),)
    return (make_passage(id_of(row), row.get("title"), row.get("text")),)


def _from_contents(row: Row) -> Passage:
    contents = row["contents"]
    if not isinstance(contents, str):
        raise ValueError("`contents` is not text")
    title, newline, text = contents.partition("\n")
    if not newline:
        return make_passage(id_of(row), row.get("title"), contents)
    if len(title) > 1 and title[0] == title[-1] == '"':
        title = title[1:-1]
    return make_passage(id_of(row), title, text)


def _detects(sample: Sample) -> bool:
    if sample.problem or not sample.is_json:
        return False
    keys = set(sample.keys)
    return not sample.is_array or (bool(keys & {*ID_KEYS, "contents"}) and "idx" not in keys)


FORMAT = CorpusFormat(
    json_reader(passages_of),
    "objects of `id`, `title`, `text` (BEIR's `_id`, Tevatron's `docid`), or Search-R1's `id`, `contents` with "
    '`contents` = `"Title"`, a line end, text; one per line, or one array',
    _detects,
)
