"""Terms are those that Elasticsearch's analyzers gave for the same text (test_elasticsearch.py asks it live)."""

import pytest

from r1searcher.errors import InputError
from r1searcher.retrieval.indexing.analyzer import Analyzer, english_terms, standard_terms, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Queen's O’Neil ROCKS'S", ["queen", "o’neil", "rock"]),
        ("genealogy psychologies Psychologie", ["genealog", "psycholog", "psychologi"]),
        ("possibly trekking falling hissed", ["possibl", "trek", "fall", "hiss"]),
        ("his has one play university", ["hi", "ha", "on", "plai", "univers"]),
        ("the to NOT", []),
        ("ファイナルファンタジーXII 東京 ひ", ["ファイナルファンタジー", "xii", "東", "京", "ひ"]),
        ("ΣΊΣΥΦΟΣ İstanbul", ["σίσυφοσ", "istanbul"]),
        ("U.S.A. 3.14 1,000 snake_case a:b", ["u.s.a", "3.14", "1,000", "snake_cas", "a:b"]),
        ("★ ☃ 👨‍👩‍👧 🇳🇴", ["★", "☃", "👨‍👩‍👧", "🇳🇴"]),
        ("dūmī\u202fx", ["dūmī\u202fx"]),
        ("", []),
        ("'\"()[]{}:;", []),
    ],
)
def test_english_terms_are_those_of_lucene(text: str, expected: list[str]) -> None:
    assert english_terms(text) == expected
    assert Analyzer("english").terms(text) == expected


def test_standard_keeps_stop_words_and_endings() -> None:
    assert standard_terms("The Universities' cat's") == ["the", "universities", "cat's"]


@pytest.mark.parametrize("letter", ["a", "é"])
def test_words_longer_than_255_characters_are_cut_as_lucene_cuts_them(letter: str) -> None:
    assert [len(word) for word in words(letter * 600)] == [255, 255, 90]


def test_cached_chunks_give_what_the_whole_text_gives() -> None:
    text = "The director's films, “shown” at universities; film’s\u00a0end\u2003there… " * 3
    analyzer = Analyzer("english")
    assert analyzer.terms(text) == english_terms(text)
    assert analyzer.terms(text) == english_terms(text)  # from the cache now


def test_an_unknown_analyzer_is_named_with_the_choice() -> None:
    with pytest.raises(InputError, match="no analyzer 'german': choose one of english, standard"):
        Analyzer("german")
