"""Readers on hostile bytes: never a crash, never a row that silently changed."""

import contextlib
import io
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from r1searcher.corpora.detect import detect_format
from r1searcher.corpora.formats import FORMATS
from r1searcher.corpora.passage import Passage
from r1searcher.corpora.rows import BadRow, BrokenFileError, UnusableShapeError

FUZZ = settings(max_examples=150, deadline=None)  # a busy machine is not a failure
ALL_FORMATS = [name for name in FORMATS if name != "parquet"]
words = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\t"), max_size=30)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = ["id", "idx", "title", "text", "contents", "wikipedia_title", "wikipedia_id", "_id", "context", "paragraphs"]
json_rows = st.dictionaries(st.sampled_from(KEYS), json_values, max_size=5)


def items(format_: str, content: bytes) -> list[Passage | BadRow]:
    return list(FORMATS[format_].read(io.BytesIO(content)))


def items_of_any(format_: str, content: bytes) -> list[Passage | BadRow]:
    """The items, and a `BadRow` for a problem that makes the whole file unreadable."""
    found = []
    try:
        for item in FORMATS[format_].read(io.BytesIO(content)):
            found.append(item)
    except BrokenFileError as error:
        found.append(BadRow(1, str(error), ""))
    return found


def check(found: list[Passage | BadRow]) -> None:
    for item in found:
        if isinstance(item, Passage):
            assert item.id
            assert item.title or item.text
            (item.id + item.title + item.text).encode()
        else:
            assert item.line >= 1
            assert item.reason


@FUZZ
@given(st.binary(max_size=300), st.sampled_from(ALL_FORMATS))
def test_any_bytes_become_passages_or_bad_rows(content: bytes, format_: str) -> None:
    with contextlib.suppress(UnusableShapeError):
        assert detect_format(content) in FORMATS
    check(items_of_any(format_, content))


@FUZZ
@given(st.lists(json_rows, max_size=4), st.sampled_from(["jsonl", "kilt", "hotpotqa", "hipporag", "paragraphs"]))
def test_json_of_any_shape_becomes_passages_or_bad_rows(rows: list[object], format_: str) -> None:
    content = json.dumps(rows) if format_ == "hipporag" else "\n".join(map(json.dumps, rows))
    found = items(format_, content.encode())
    check(found)
    if format_ in ("jsonl", "hotpotqa", "hipporag"):
        assert len(found) == len(rows), "a row was lost or doubled"


@FUZZ
@given(st.lists(st.tuples(words, words), min_size=1, max_size=5), st.data())
def test_damage_to_one_jsonl_row_stays_in_that_row(texts: list[tuple[str, str]], data: st.DataObject) -> None:
    lines = [json.dumps({"id": n, "title": a, "text": f"{b}x"}).encode() for n, (a, b) in enumerate(texts)]
    whole = items("jsonl", b"\n".join(lines))
    hit = data.draw(st.integers(0, len(lines) - 1))
    cut = data.draw(st.integers(1, len(lines[hit]) - 1))
    lines[hit] = lines[hit][:cut]
    damaged = items("jsonl", b"\n".join(lines))
    assert isinstance(damaged[hit], BadRow)
    assert damaged[:hit] + damaged[hit + 1 :] == whole[:hit] + whole[hit + 1 :]


titles = words.map(str.strip).filter(lambda text: text and "Text:" not in text)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=60).map(str.strip)


@FUZZ
@given(st.lists(st.tuples(titles, texts), min_size=1, max_size=5))
def test_r1_searcher_rows_come_back_as_they_were_written(rows: list[tuple[str, str]]) -> None:
    """Quoted as by pandas, including line ends inside quotes, unless a line looks like a new row."""
    rows = [(title, "\n".join(line.replace("\t", " ") for line in text.split("\n"))) for title, text in rows]
    content = ""
    for number, (title, text) in enumerate(rows):
        body = f"Title: {title} Text:  {text}"
        quote = any(character in body for character in '"\n')
        content += f"{number}\t" + ('"' + body.replace('"', '""') + '"' if quote else body) + "\n"
    expected = [Passage(str(number), title, text.strip()) for number, (title, text) in enumerate(rows)]
    assert items("r1-searcher", content.encode()) == expected


@FUZZ
@given(st.lists(json_rows, max_size=4), st.integers(1, 400), st.sampled_from([b"", b"\xff", b'"', b"]", b",,"]))
def test_a_damaged_array_never_reads_as_a_whole_one(rows: list[object], place: int, junk: bytes) -> None:
    whole = json.dumps(rows).encode()
    damaged = whole[:place] + junk + whole[place + (junk == b"") :]
    found = items_of_any("hipporag", damaged)
    check(found)
    if len(whole) > place:
        try:
            readable = json.loads(damaged.decode())
        except ValueError:
            assert any(isinstance(item, BadRow) for item in found)
        else:
            assert not isinstance(readable, list) or len(found) == len(readable)
