"""Finding names in questions and passages. A name is a run of words that can be the title of a passage."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from r1searcher.retrieval.indexing.analyzer import STOP_WORDS
from r1searcher.rewards.metrics import normalize

LONGEST = 10
"""Words of the longest name that is looked for."""

_WORD = re.compile(r"[^\s\"“”()\[\]{},;:!?]+")
_POSSESSIVE = re.compile(r"(?:['’]s|['’])$")
_SENTENCE_END = re.compile(r"(?:\w{4,}|\d)\.$")
"""A word with a period that ends a sentence, not an abbreviation."""

_DISAMBIGUATION = re.compile(r"\s*\([^()]*\)$")
_JOINING = "of the and in on at for a an de la le von van del di du und y & to with from"
_INSIDE = frozenset(_JOINING.split())
"""Words in lower case that may be inside a name."""

_GENERAL = """
what which who whom whose when where why how does do did is are was were be been has have had can could would should may
both same more than also between among either one name named called many much first last
"""
_ASKING = STOP_WORDS | frozenset(_GENERAL.split())
"""Words that say nothing about what is asked for."""


@dataclass(frozen=True, slots=True)
class Name:
    """A name as it is written in a text, from character `start` to `end`."""

    text: str
    start: int
    end: int


def bare(title: str) -> str:
    """A title without the part in parentheses that distinguishes it from others, normalized.

    >>> bare("The Godfather (film)")
    'godfather'
    """
    return normalize(_DISAMBIGUATION.sub("", title))


def capitalized(text: str) -> list[Name]:
    """The longest runs of words that begin with a capital letter or a digit, which may join words such as "of".

    >>> [name.text for name in capitalized("Is the Bay of Pigs in Cuba or Haiti?")]
    ['Is the Bay of Pigs in Cuba', 'Haiti']
    """
    runs: list[list[re.Match[str]]] = [[]]
    end = 0
    for word in _WORD.finditer(text):
        joined = text[end : word.start()].strip() == ""
        starts = _can_start(word[0])
        if not joined or not (starts or (runs[-1] and word[0].lower() in _INSIDE)):
            runs.append([])
        if starts or runs[-1]:
            runs[-1].append(word)
        if _SENTENCE_END.search(word[0]):
            runs.append([])
        end = word.end()
    return [name for run in runs if (name := _trimmed(text, run)) is not None]


def _can_start(word: str) -> bool:
    """Whether a name can begin with the word."""
    return word[0].isupper() or word[0].isdigit()


def _trimmed(text: str, run: list[re.Match[str]]) -> Name | None:
    while run and not _can_start(run[-1][0]):
        run.pop()
    return _name(text, run[0].start(), run[-1].end()) if run else None


def _name(text: str, start: int, end: int) -> Name:
    """The name from `start` to `end`, without a period or a possessive at its end."""
    written = _POSSESSIVE.sub("", text[start:end].rstrip(".'’"))
    return Name(written, start, start + len(written))


def spans(text: str) -> Iterator[Name]:
    """Every run of at most `LONGEST` words that begins with a capital letter or a digit, with and without the
    possessive at its end."""
    words = list(_WORD.finditer(text))
    for first, word in enumerate(words):
        if _can_start(word[0]):
            for last in words[first : first + LONGEST]:
                name = _name(text, word.start(), last.end())
                yield name
                if (whole := text[word.start() : last.end()]).endswith(("s", "'", "’")) and whole != name.text:
                    yield Name(whole, word.start(), last.end())  # "St. Mary's" may be the title


def names_of(text: str, titles: Iterable[str]) -> list[Name]:
    """The names in `text` that are one of `titles`, in their order and each once; none that is inside a longer one."""
    known = {bare(title) for title in titles} - {""}
    found = [name for name in spans(text) if normalize(name.text) in known]
    found.sort(key=lambda name: (name.start - name.end, name.start))  # longest first
    chosen: list[Name] = []
    for name in found:
        if all(name.end <= other.start or name.start >= other.end for other in chosen):
            chosen.append(name)
    first: dict[str, Name] = {}
    for name in sorted(chosen, key=lambda name: name.start):
        first.setdefault(normalize(name.text), name)
    return list(first.values())


def asked_words(text: str, names: Iterable[Name], most: int = 6) -> list[str]:
    """The words of a question outside its names that say what is asked for, at most `most`.

    >>> question = "Who directed the film Silver Harbor?"
    >>> asked_words(question, names_of(question, ["Silver Harbor"]))
    ['directed', 'film']
    """
    taken = list(names)
    words = [
        word[0].rstrip(".'’")
        for word in _WORD.finditer(text)
        if all(word.end() <= name.start or word.start() >= name.end for name in taken)
    ]
    return [word for word in words if _POSSESSIVE.sub("", word.lower()) not in _ASKING and word.isalnum()][:most]
