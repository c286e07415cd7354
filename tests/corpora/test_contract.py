"""Every corpus format of the package keeps the contract that others test theirs with."""

import io
import json
from collections.abc import Iterator

import pytest

from r1searcher.corpora.contract import check_corpus_format
from r1searcher.corpora.formats import FORMATS, CorpusFormat
from r1searcher.corpora.passage import Passage
from tests.shared_data import DATA


def parquet() -> bytes:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    file = io.BytesIO()
    parquet.write_table(arrow.table({"id": ["1", "2"], "title": ["A", "B"], "text": ["a", "b"]}), file)
    return file.getvalue()


def content(name: str) -> tuple[bytes, int]:
    """A file of the format, and its number of passages."""
    pages = [{"id": n, "title": "Oslo", "text": "A town."} for n in range(3)]
    contents = {
        "jsonl": ("\n".join(map(json.dumps, pages)), 3),
        "hipporag": (json.dumps([{"title": "Oslo", "text": "A town."}] * 2), 2),
        "hotpotqa": (json.dumps({"id": "1", "title": "Oslo", "text": ["A town.", " Cold."]}), 1),
        "kilt": (json.dumps({"wikipedia_id": 1, "wikipedia_title": "Oslo", "text": ["A town "] * 60}), 2),
        "paragraphs": (json.dumps({"question": "?", "context": [["Oslo", ["A town."]], ["Bergen", ["A bay."]]]}), 2),
        "dpr": ('id\ttext\ttitle\n1\t"A ""town"""\tOslo\n2\tA bay.\tBergen\n', 2),
        "r1-searcher": ('0\tTitle: Oslo Text:  A town.\n1\t"Title: A Text: ""b"""\n', 2),
    }
    if name == "parquet":
        return parquet(), 2
    text, passages = contents[name]
    return text.encode(), passages


@pytest.mark.parametrize("name", FORMATS.builtin)
def test_formats(name: str) -> None:
    check_corpus_format(FORMATS[name], *content(name))


def test_a_released_file_of_many_rows() -> None:
    data = (DATA / "corpora" / "r1_searcher_abstracts.tsv").read_bytes()
    check_corpus_format(FORMATS["r1-searcher"], data, 40)


def strict(file, before: int = 0) -> Iterator[Passage]:
    for number, line in enumerate(file, 1):
        yield Passage(str(number), "", line.decode())  # raises UnicodeDecodeError


def untitled(file, before: int = 0) -> Iterator[Passage]:
    for _ in file:
        yield Passage("", "", "")


def silent(file, before: int = 0) -> Iterator[Passage]:
    return iter(())


@pytest.mark.parametrize(
    ("format_", "error", "rule"),
    [
        (CorpusFormat(strict, "lines"), UnicodeDecodeError, "decode"),
        (CorpusFormat(untitled, "lines"), AssertionError, "has an id"),
        (CorpusFormat(silent, "lines"), AssertionError, "has 2 passages; 0 were read"),
        (CorpusFormat(strict, ""), AssertionError, "says what a row is"),
        (CorpusFormat(strict, "lines", lambda sample: False), AssertionError, "is recognized"),
    ],
)
def test_a_format_that_breaks_a_rule_is_told_which(format_: CorpusFormat, error: type[Exception], rule: str) -> None:
    with pytest.raises(error, match=rule):
        check_corpus_format(format_, b"a\nb\n", passages=2)
