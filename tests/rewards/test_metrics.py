import re
import string
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1searcher.rewards.metrics import normalize, score


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        ("The  U.S._Route 22", "u s route 22"),
        ("‘An’ ´apple` a day", "apple day"),
        ("True", "yes"),
        ("False", "no"),
        (" True ", "true"),
        ("true", "true"),
        ("Another theatre", "another theatre"),
        ("the–end", "–end"),
        ("A", ""),
    ],
)
def test_normalization(raw: str, normal: str) -> None:
    assert normalize(raw) == normal


def test_equal_answers_earn_everything() -> None:
    assert score(" The Oslo. ", ["oslo"]) == (1.0, 1.0, 1.0, 1.0)


def test_no_answer_earns_nothing() -> None:
    assert score(None, ["Oslo"]) == (0.0, 0.0, 0.0, 0.0)
    assert score("", ["Oslo"]) == (0.0, 0.0, 0.0, 0.0)


def test_no_gold_earns_nothing() -> None:
    assert score("Oslo", []) == (0.0, 0.0, 0.0, 0.0)


def test_words_in_another_order_cover_loosely_only() -> None:
    scores = score("Norway, Oslo", ["Oslo Norway"])
    assert scores.em == 0
    assert scores.f1 == 1
    assert scores.cover_em == 1
    assert scores.cover_em_contiguous == 0


def test_f1_counts_repeated_words_as_often_as_both_have_them() -> None:
    assert score("new york new york", ["new york"]).f1 == pytest.approx(2 * 2 / (4 + 2))
    assert score("york york york", ["york york new"]).f1 == pytest.approx(2 * 2 / (3 + 3))


@pytest.mark.parametrize(("answer", "gold"), [("yes it is", "yes"), ("no", "yes"), ("noanswer", "no answer here")])
def test_f1_of_a_closed_answer_is_all_or_nothing(answer: str, gold: str) -> None:
    assert score(answer, [gold]).f1 == 0


def test_the_best_gold_counts_for_each_metric() -> None:
    scores = score("Oslo city", ["city of Oslo in Norway", "Oslo"])
    assert scores.f1 == pytest.approx(2 / 3)
    assert scores.cover_em == 1


def test_a_gold_that_normalizes_to_nothing_is_a_substring_of_every_answer() -> None:
    assert score("A", ["A"]).em == 1
    assert score("Oslo", ["A"]) == (0.0, 0.0, 0.0, 1.0)
    assert score(None, ["A"]) == (0.0, 0.0, 0.0, 0.0)


def plain(answer: str, gold: str) -> tuple[float, float, float, float]:
    """The published formulas, one line after the other."""

    def normal(text: str) -> str:
        text = {"True": "yes", "False": "no"}.get(text, text).replace("_", " ").lower()
        text = "".join(" " if c in string.punctuation + "‘’´`" else c for c in text)
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())

    a, g = normal(answer), normal(gold)
    common = sum((Counter(a.split()) & Counter(g.split())).values())
    f1 = 0.0
    if common and not (a != g and {a, g} & {"yes", "no", "noanswer"}):
        precision, recall = common / len(a.split()), common / len(g.split())
        f1 = 2 * precision * recall / (precision + recall)
    covered = all(word in a.split(" ") for word in g.split(" "))
    return float(a == g), f1, float(covered), float(g in a)


words = st.lists(
    st.sampled_from(["the", "a", "Oslo", "oslo,", "yes", "no", "New", "York", "–", "x_y", "‘an’", "É", " ", "True"]),
    max_size=6,
).map(" ".join)


@given(words, words)
def test_scores_are_those_of_the_plain_formulas(answer: str, gold: str) -> None:
    assert score(answer, [gold]) == pytest.approx(plain(answer, gold))
