"""Contract of corpus formats, for your own tests:

    check_corpus_format(NOTES, b"#notes\\nOslo :: A town.\\n", passages=1)

It raises `AssertionError` with the rule that was broken.
"""

import io
import random
from collections.abc import Iterator

from r1searcher.common.contract import rule
from r1searcher.corpora.detect import Sample
from r1searcher.corpora.formats import CorpusFormat
from r1searcher.corpora.passage import Passage
from r1searcher.corpora.rows import BadRow, BrokenFileError, UnusableShapeError


def check_corpus_format(format_: CorpusFormat, content: bytes, passages: int) -> None:
    """Raises `AssertionError` for the first rule that the format breaks.

    `content` is a complete file of the format with this number of `passages` and no bad row. If the file is cut or
    changed, and for any other bytes, the reader yields passages and bad rows, or raises `BrokenFileError` or
    `UnusableShapeError`, and nothing else; the detection raises nothing.
    """
    rule(format_.about, "the format says what a row is")
    items = _items(format_, content)
    bad = next((item for item in items if not isinstance(item, Passage)), None)
    rule(bad is None, f"every row of the content is a passage: {bad}")
    rule(len(items) == passages, f"the content has {passages} passages; {len(items)} were read")
    rule(items == _items(format_, content), "the content is read the same way every time")
    rule(format_.detects is None or format_.detects(Sample(content)), "the content is recognized")
    for damaged in _damaged(content):
        _items(format_, damaged)
        if format_.detects is not None:
            rule(isinstance(format_.detects(Sample(damaged)), bool), "the detection says True or False")


def _items(format_: CorpusFormat, content: bytes) -> list[Passage | BadRow]:
    items: list[Passage | BadRow] = []
    try:
        for item in format_.read(io.BytesIO(content), 0):
            _check_item(item)
            items.append(item)
    except (BrokenFileError, UnusableShapeError) as error:
        items.append(BadRow(1, str(error), ""))
    return items


def _check_item(item: object) -> None:
    if isinstance(item, BadRow):
        rule(item.line >= 1 and item.reason, f"a bad row has a line from 1 and a reason: {item}")
        return
    rule(isinstance(item, Passage), f"an item is a Passage or a BadRow: {item!r}")
    assert isinstance(item, Passage)
    rule(item.id and (item.title or item.text), f"a passage has an id, and a title or a text: {item}")
    try:
        (item.id + item.title + item.text).encode()
    except UnicodeEncodeError:
        raise AssertionError(f"a passage has no half characters (lone surrogates): {item!r}") from None


def _damaged(content: bytes) -> Iterator[bytes]:
    """The content cut anywhere, with single bytes changed, without its line ends; then no bytes and random ones."""
    rng = random.Random(0)
    for _ in range(100):
        at = rng.randrange(len(content) + 1)
        yield content[:at]
        yield content[:at] + rng.choice([b"\xff", b"\0", b'"', b"\n", b"\t", b"]", b"{"]) + content[at + 1 :]
        yield rng.randbytes(rng.randrange(200))
        yield content + rng.randbytes(20)
    yield content.replace(b"\n", b"")
    yield content.replace(b"\n", b"\r\n")
