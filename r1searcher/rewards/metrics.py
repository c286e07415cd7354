"""How well an answer agrees with the gold answers: EM, F1 and the two kinds of cover EM.

Definitions are R1-Searcher's (arXiv 2503.05592, section 4, and its released scorer). All values are in 0..1. Of
several gold answers the best one counts, for each metric separately.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

_DELETED = str.maketrans("", "", string.punctuation)
_BLANKED = str.maketrans(dict.fromkeys(string.punctuation + "‘’´", " "))
_ARTICLES = frozenset({"a", "an", "the"})
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_TRUTH = {"True": "yes", "False": "no"}
CLOSED = frozenset({"yes", "no", "noanswer"})


class Scores(NamedTuple):
    """The metrics of one answer, each in 0..1."""

    em: float = 0.0
    """The normalized answer equals the normalized gold answer."""

    f1: float = 0.0
    """Harmonic mean of precision and recall over bags of words; 0 if one side is yes or no and the other differs."""

    cover_em: float = 0.0
    """Every word of the gold answer occurs in the answer, in any order (the paper's ACC_R)."""

    cover_em_contiguous: float = 0.0
    """The normalized gold answer is a substring of the normalized answer; always true if it normalizes to nothing."""


def normalize(text: str) -> str:
    """Lower case, spaces for punctuation and articles, single spaces between words.

    Exactly "True" or "False" become "yes" and "no"; not with a space before or after it.

    >>> normalize("The U.S._Route 22")
    'u s route 22'
    """
    return " ".join(_words(text))


def _words(text: str) -> list[str]:
    return blank_words(_TRUTH.get(text, text))


def has_words(text: str, words: str) -> bool:
    """Whether `words` are in `text` as whole words next to each other; both are normalized. Never if there are none.

    >>> has_words("song of new york", "new york"), has_words("song of new york", "son")
    (True, False)
    """
    return bool(words) and f" {words} " in f" {text} "


def is_yes_no(gold: str) -> bool:
    """Whether a gold answer is yes or no."""
    return normalize(gold) in ("yes", "no")


def blank_words(text: str) -> list[str]:
    """Words of `text` in lower case, without articles, where punctuation separates words (TriviaQA's normalization).

    >>> blank_words("The U.S._Route 22")
    ['u', 's', 'route', '22']
    """
    return _without_articles(text, _BLANKED)


def delete_words(text: str) -> list[str]:
    """The same, but punctuation is deleted (SQuAD's normalization, which most datasets' own scorers use).

    >>> delete_words("The U.S._Route 22")
    ['usroute', '22']
    """
    return _without_articles(text, _DELETED)


def _without_articles(text: str, punctuation: dict[int, str] | dict[int, int | None]) -> list[str]:
    plain = text.lower().translate(punctuation)
    if text.isascii() and text.isprintable():  # then only spaces separate words, and comparing them is faster
        return [word for word in plain.split() if word not in _ARTICLES]
    return _ARTICLE.sub(" ", plain).split()


deleted_gold_words = lru_cache(maxsize=1 << 17)(delete_words)
"""`delete_words` of a gold answer, computed once per gold answer."""


def f1_of_words(answer: Sequence[str], gold: Sequence[str]) -> float:
    """Harmonic mean of precision and recall over bags of words; 0 if none is shared."""
    common = (Counter(answer) & Counter(gold)).total()
    return 2 * common / (len(answer) + len(gold)) if common else 0.0


class _Gold(NamedTuple):
    text: str
    words: list[str]
    distinct: frozenset[str]


@lru_cache(maxsize=1 << 17)
def _gold(text: str) -> _Gold:
    words = _words(text)
    return _Gold(" ".join(words), words, frozenset(words))


def gold_words(gold: str) -> list[str]:
    """The words of a gold answer after normalization; computed once per gold answer."""
    return _gold(gold).words


def score(answer: str | None, gold_answers: Sequence[str]) -> Scores:
    """What `answer` earns against `gold_answers`. None means that no answer was given, and earns nothing.

    `answer` is the raw text between the tags: spaces at its ends matter to the True/False rule.
    """
    if answer is None:
        return Scores()
    words = _words(answer)
    normal = " ".join(words)
    distinct = set(words)
    em = f1 = cover = contiguous = 0.0
    for gold in map(_gold, gold_answers):
        if gold.text == normal:
            return Scores(1.0, 1.0 if words else 0.0, 1.0, 1.0)
        if gold.text in normal:  # also if the gold answer normalizes to nothing
            contiguous = 1.0
        shared = distinct & gold.distinct
        if not shared:
            continue
        if len(shared) == len(gold.distinct):
            cover = 1.0
        if normal not in CLOSED and gold.text not in CLOSED:
            common = len(shared)
            if len(distinct) < len(words) and common < len(gold.words):  # only then can a word count twice
                common = (Counter(words) & Counter(gold.words)).total()
            f1 = max(f1, 2 * common / (len(words) + len(gold.words)))
    return Scores(em, f1, cover, contiguous)
