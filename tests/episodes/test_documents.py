"""Passages as the model reads them."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1searcher.corpora.passage import Passage
from r1searcher.episodes.documents import block_of
from r1searcher.episodes.documents import fit as fit_with
from r1searcher.episodes.protocol import Document
from r1searcher.episodes.protocols.r1_searcher import R1_SEARCHER
from r1searcher.retrieval.base import Hit

TAGS = R1_SEARCHER.tags
sanitize = R1_SEARCHER.sanitize
pieces = st.lists(
    st.one_of(st.sampled_from([*TAGS, "<", "|", ">", "＜think＞", "</", "end_of_query"]), st.text(max_size=5))
)


@given(pieces.map("".join))
def test_no_tag_survives_sanitizing(text: str) -> None:
    clean = sanitize(text, ("<|im_end|>", "</s>"))
    assert not any(tag in clean for tag in (*TAGS, "<|im_end|>", "</s>"))
    assert "\n" not in clean
    assert sanitize(clean, ("<|im_end|>", "</s>")) == clean


def test_full_width_tags_count_as_tags() -> None:
    assert "think" in sanitize("＜think＞")
    assert "<think>" not in sanitize("＜think＞")


def test_plain_text_is_left_alone() -> None:
    assert sanitize("3 < 4 and a|b > c") == "3 < 4 and a|b > c"


def test_a_block_has_the_papers_shape() -> None:
    assert block_of([Document("Oslo", "Oslo is a city in the north.")], R1_SEARCHER, 4) == (
        "\n\n<|begin_of_documents|>\n(1)Title: Oslo Text: Oslo is a city\n<|end_of_documents|>\n\n"
    )


def hits(*texts: str) -> list[Hit]:
    return [Hit(Passage(str(i), "T", text), 1.0) for i, text in enumerate(texts)]


class Words:
    """A tokenizer with one token per word."""

    special_tokens: tuple[str, ...] = ()

    def encode(self, text: str) -> list[int]:
        return [hash(word) for word in text.split()]

    def decode(self, token_ids: Sequence[int]) -> str:
        raise NotImplementedError


def words(text: str) -> int:
    return len(text.split())


def fit(found: list[Hit], max_words: int, max_tokens: int) -> tuple[str, int] | None:
    return fit_with(found, R1_SEARCHER, Words(), max_words, max_tokens)


@pytest.mark.parametrize("room", range(3, 80))
def test_a_fitted_block_never_exceeds_its_room(room: int) -> None:
    block = fit(hits("a " * 20, "b " * 20, "c " * 20), 20, room)
    if block is not None:
        assert words(block[0]) <= room
        assert 1 <= block[1] <= 3


def test_passages_are_shortened_together_before_one_is_left_out() -> None:
    block = fit(hits("a " * 20, "b " * 20), 20, 26)
    assert block is not None
    text, shown = block
    assert shown == 2
    assert text.count(" a") == text.count(" b") >= 4


def test_the_last_passage_goes_when_few_words_of_each_would_be_left() -> None:
    block = fit(hits("a " * 20, "b " * 20), 20, 12)
    assert block is not None
    assert block[1] == 1


def test_nothing_fits_in_no_room_and_nothing_found_is_said() -> None:
    assert fit(hits("a b"), 10, 2) is None
    empty = fit([], 10, 50)
    assert empty is not None
    assert "No passage matched the query." in empty[0]
