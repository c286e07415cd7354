"""Every corpus format, row by row. No shared data, no server."""

import io
import json
import re

import pytest

from r1searcher.corpora.detect import detect_format
from r1searcher.corpora.formats import FORMATS
from r1searcher.corpora.passage import Passage
from r1searcher.corpora.rows import BadRow, BrokenFileError, UnusableShapeError


def read(format_: str, content: str | bytes) -> list[Passage | BadRow]:
    return list(FORMATS[format_].read(io.BytesIO(content.encode() if isinstance(content, str) else content)))


def one(format_: str, content: str | bytes) -> Passage | BadRow:
    (item,) = read(format_, content)
    return item


def reason(format_: str, content: str | bytes) -> str:
    item = one(format_, content)
    assert isinstance(item, BadRow)
    return item.reason


@pytest.mark.parametrize(
    ("row", "passage"),
    [
        ({"id": 7, "title": "Oslo", "text": "A town."}, Passage("7", "Oslo", "A town.")),
        ({"id": "a", "text": " no title \n"}, Passage("a", "", "no title")),
        ({"id": "a", "title": None, "text": "x", "more": [1]}, Passage("a", "", "x")),
        ({"id": "1", "contents": '"Oslo"\nA town.'}, Passage("1", "Oslo", "A town.")),
        ({"id": "1", "contents": '""Heroes" (album)"\nBy Bowie.'}, Passage("1", '"Heroes" (album)', "By Bowie.")),
        ({"id": "1", "contents": "Oslo\nA town.\nIn Norway."}, Passage("1", "Oslo", "A town.\nIn Norway.")),
        ({"id": "1", "contents": "only text"}, Passage("1", "", "only text")),
    ],
)
def test_jsonl(row: dict[str, object], passage: Passage) -> None:
    assert one("jsonl", json.dumps(row)) == passage


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        ('{"text": "x"}', "the id is missing"),
        ('{"id": true, "text": "x"}', "neither text nor a whole number"),
        ('{"id": 1.5, "text": "x"}', "neither text nor a whole number"),
        ('{"id": 1, "title": ["x"], "text": "x"}', "the title is not text"),
        ('{"id": 1, "title": "x"}', "the text is missing"),
        ('{"id": 1, "text": {"a": 1}}', "the text is not text"),
        ('{"id": 1, "title": " ", "text": ""}', "title and text are empty"),
        ('{"id": 1, "contents": 3}', "`contents` is not text"),
        ('{"id": 1, "text": "\\ud800"}', "lone surrogate"),
        ('{"id": 1, "text": ' + "[" * 100_000, "nested too deeply"),
        (b'{"id": 1, "text": "\xff"}', "not UTF-8 at byte 20"),
        ('{"id": 1, "text": "x", "n": ' + "9" * 5000 + "}", "a number is too long"),
        ('{"id": ' + "9" * 5000 + ', "text": "x"}', "a number is too long"),
    ],
)
def test_a_bad_jsonl_row_says_why(line: str | bytes, why: str) -> None:
    assert why in reason("jsonl", line)


def test_bad_rows_carry_their_line_and_leave_the_others_alone() -> None:
    items = read("jsonl", '\ufeff{"id": 1, "text": "a"}\r\n\nbroken\n{"id": 2, "text": "b"}')
    assert items == [
        Passage("1", "", "a"),
        BadRow(3, "not JSON: Expecting value at character 1", "broken"),
        Passage("2", "", "b"),
    ]


@pytest.mark.parametrize(
    ("row", "passage"),
    [
        ("17\tTitle: Oslo Text:  A town.  Cold.", Passage("17", "Oslo", "A town.  Cold.")),
        ('\ufeff0\t"Title: Oslo Text:  Called ""Tigerstaden""."', Passage("0", "Oslo", 'Called "Tigerstaden".')),
        ('0\t"Title: ""Heroes"" Text: Song"', Passage("0", '"Heroes"', "Song")),
        ('0\t"Title: A Text: two\nlines ""here"""\n', Passage("0", "A", 'two\nlines "here"')),
        ("3\tTitle: Quatre? Text:  Quatre? \t tab", Passage("3", "Quatre?", "Quatre? \t tab")),
        ('8\tA   A A (named , plural "As")', Passage("8", "A", 'A A (named , plural "As")')),
        ('8\t"Heroes"   A song called "Heroes"', Passage("8", '"Heroes"', 'A song called "Heroes"')),
        ("5\tTitle: Only a title Text:", Passage("5", "Only a title", "")),
        ("6\tTitle: A Text: B Text: C", Passage("6", "A", "B Text: C")),
    ],
)
def test_r1_searcher(row: str, passage: Passage) -> None:
    assert one("r1-searcher", row) == passage


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("no tab at all", "there is no tab"),
        ("1\tneither form", "neither"),
        ("1\tTitle: no text marker", "neither"),
        ('1\t"Title: A Text: not closed', "not closed"),
        ('1\t"Title: A Text: b" trailing "c"', "not closed"),
        ("\tTitle: A Text: b", "the id is missing"),
    ],
)
def test_a_bad_r1_searcher_row_says_why(row: str, why: str) -> None:
    assert why in reason("r1-searcher", row)


def test_an_unclosed_quote_costs_one_row_and_no_more() -> None:
    items = read("r1-searcher", '0\t"Title: A Text: open\n1\tTitle: B Text: b\n2\t"Title: C Text: ""c"""\n')
    assert [type(item) for item in items] == [BadRow, Passage, Passage]
    assert items[1:] == [Passage("1", "B", "b"), Passage("2", "C", '"c"')]


def test_kilt_pages_become_passages_of_100_words_with_their_title() -> None:
    text = ["Oslo\n", "Section::::History.\n", "BULLET::::- " + " ".join(f"w{n}" for n in range(150)) + "\n"]
    first, second = read("kilt", json.dumps({"wikipedia_id": 22309, "wikipedia_title": "Oslo", "text": text}))
    assert isinstance(first, Passage)
    assert isinstance(second, Passage)
    assert (first.id, first.title, len(first.text.split())) == ("22309-0", "Oslo", 100)
    assert first.text.startswith("Oslo History. - w0 w1 ")
    assert second == Passage("22309-1", "Oslo", " ".join(f"w{n}" for n in range(97, 150)))


def test_kilt_pages_without_an_id_are_numbered_by_their_line() -> None:
    pages = "\n".join(json.dumps({"wikipedia_title": title, "text": ["x"]}) for title in ("A", "B"))
    assert [item.id for item in read("kilt", pages) if isinstance(item, Passage)] == ["0-0", "1-0"]
    assert reason("kilt", '{"wikipedia_title": "A", "text": "x"}') == "`text` is not a list of paragraphs"


@pytest.mark.parametrize("text", [["A town.", " In Norway."], [["A town."], ["In Norway."]]])
def test_hotpotqa_sentences_become_one_passage(text: object) -> None:
    row = json.dumps({"id": "12", "url": "u", "title": "Oslo", "text": text, "charoffset": []})
    assert one("hotpotqa", row) == Passage("12", "Oslo", "A town. In Norway.")
    assert reason("hotpotqa", '{"id": "1", "title": "x", "text": [1]}') == "`text` is not a list of sentences"


def test_hipporag_rows_are_numbered_by_their_place() -> None:
    rows = [
        {"title": "A", "text": "a, ] }"},
        {"title": "B", "text": "b", "idx": 7},
        "odd",
        {"title": "C", "text": "ø" * 300_000},
    ]
    items = read("hipporag", json.dumps(rows, indent=1, ensure_ascii=False))
    assert items[:2] == [Passage("0", "A", "a, ] }"), Passage("7", "B", "b")]
    assert items[2] == BadRow(3, "the row is not a JSON object", items[2].row)  # type: ignore[union-attr]
    assert items[3] == Passage("3", "C", "ø" * 300_000)


@pytest.mark.parametrize(
    ("content", "passages", "why"),
    [
        ('[{"title": "A", "text": "a"}, {"title"', 1, "the file ends inside element 2 of the array"),
        ('[{"title": "A", "text": "a"}, {"title": "B", "te', 1, "the file ends inside element 2 of the array"),
        ('[{"title": "A", "text": "a"}', 1, "ends after element 1, without its closing bracket"),
        ('[{"title": "A", "text": "a"},', 1, "the file ends inside element 2"),
        ("[", 0, "the file ends inside element 1"),
        ('[{"title": "A", "text": "a"} {"title": "B", "text": "b"}]', 1, "',' is missing after element 1"),
        ('[{"title": "A", "text": "a"}]\n[{"title": "B", "text": "b"}]', 1, "something follows the end of the array"),
        (
            '[{"title": "A", "text": "a"}, {"title": "B", "text": nil}, {"title": "C"}]',
            1,
            "Expecting value in element 2",
        ),
        ('[{"title": "A", "text": "a"}, {"x": ' + "[" * 100_000 + "]" * 100_000 + "}]", 1, "nested too deeply"),
        ('[{"title": "A", "text": "a"}, {"x": ' + "9" * 5000 + "}]", 1, "a number is too long"),
    ],
)
def test_an_array_that_is_cut_or_broken_is_an_error_and_never_a_smaller_corpus(
    content: str, passages: int, why: str
) -> None:
    items = FORMATS["hipporag"].read(io.BytesIO(content.encode()))
    found = [next(items) for _ in range(passages)]
    with pytest.raises(BrokenFileError, match=re.escape(why)):
        next(items)
    assert [type(item) for item in found] == [Passage] * passages


def test_a_bad_element_of_a_whole_array_costs_that_element_alone() -> None:
    found = read("hipporag", b'[{"title": "A", "text": "\xff"}, {"title": "B", "text": "b"}]')
    assert isinstance(found[0], BadRow)
    assert "lone surrogate" in found[0].reason
    assert found[1:] == [Passage("1", "B", "b")]


@pytest.mark.parametrize(
    ("start", "format_"),
    [
        ('{"id": 1, "contents": "x"}', "jsonl"),
        ('\ufeff\n {"id": 1, "title": "x", "text": "x"}', "jsonl"),
        ('{"wikipedia_title": "A", "text": ["x', "kilt"),
        ('{"id": "12", "url": "u", "title": "A", "text": ["x', "hotpotqa"),
        ('[\n {"title": "A"', "hipporag"),
        ("0\tTitle: A Text: b", "r1-searcher"),
        ('\ufeff0\t"Title: A Text: b"', "r1-searcher"),
    ],
)
def test_formats_are_detected_by_content(start: str, format_: str) -> None:
    assert detect_format(start.encode()) == format_


@pytest.mark.parametrize("start", ["Lorenzo Strozzi parents\nOslo", "", "  \n"])
def test_what_is_in_no_format_is_refused(start: str) -> None:
    with pytest.raises(UnusableShapeError):
        detect_format(start.encode())
