"""Splits text into terms like Lucene's `EnglishAnalyzer`, so that an embedded index ranks like Elasticsearch.

The chain is Lucene's: words of UAX #29, possessive 's removed, lower case, 33 stop words, Porter's first stemmer.
Corpus and queries must use the same one. `standard` stops after lower case, for languages other than English.

Sources: Unicode Standard Annex 29, section 4 (word boundaries); Porter, "An algorithm for suffix stripping" (1980);
the behavior of Elasticsearch's `_analyze` (`english`, `standard`), against which tests/retrieval compares.
"""

import re
from collections.abc import Callable
from typing import Any

import regex
import Stemmer

from r1searcher.errors import InputError

MAX_TERM_CHARS = 255
"""Lucene cuts longer words into pieces of this many UTF-16 units (characters beyond U+FFFF count twice)."""

_STOP_WORDS = """
    a an and are as at be but by for if in into is it no not of on or such
    that the their then there these they this to was will with
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())

# UAX #29's word break classes. A character is followed by any number of marks and format characters (rule WB4).
_MARKS = r"[\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}]*+"
_LETTER = rf"(?:[\p{{WB=ALetter}}\p{{WB=Hebrew_Letter}}]{_MARKS})"
_HEBREW = rf"(?:\p{{WB=Hebrew_Letter}}{_MARKS})"
_DIGIT = rf"(?:\p{{WB=Numeric}}{_MARKS})"
_KATAKANA = rf"(?:\p{{WB=Katakana}}{_MARKS})"
_INSIDE_WORD = rf"(?:[\p{{WB=MidLetter}}\p{{WB=MidNumLet}}\p{{WB=Single_Quote}}]{_MARKS})"
_INSIDE_NUMBER = rf"(?:[\p{{WB=MidNum}}\p{{WB=MidNumLet}}\p{{WB=Single_Quote}}]{_MARKS})"
_CONNECTOR = rf"(?:[\p{{WB=ExtendNumLet}}\u202F]{_MARKS})"
_LETTERS = rf"{_LETTER}+(?:{_INSIDE_WORD}{_LETTER}+)*"
_NUMBER = rf"{_DIGIT}+(?:{_INSIDE_NUMBER}{_DIGIT}+)*"
_RUN = rf"(?:(?:{_HEBREW}+(?:\"{_MARKS}{_HEBREW}+)+|{_LETTERS}|{_NUMBER})+|{_KATAKANA}+)"
# Pictographs of Unicode 12, which Lucene has; later versions of the property leave most dingbats and symbols out.
_PICTURES = (
    r"\p{Extended_Pictographic}©®‼⁉™\u2388\u2600-\u2605\u2607-\u2612\u2614-\u2685\u2690-\u2705\u2708-\u2712"
    r"\u2763-\u2767\U0001F000-\U0001F0F5\U0001F10D-\U0001F10F\U0001F12F\U0001F16C-\U0001F16F\U0001F260-\U0001F265"
    r"\U0001F300-\U0001F64F\U0001F680-\U0001F6FF\U0001F774-\U0001F77F\U0001F7D5-\U0001F7FF\U0001F8AE-\U0001F8FF"
    r"\U0001FA00-\U0001FFFD"
)
_PICTURE = rf"(?:[{_PICTURES}]\uFE0F?\p{{EMod}}?)"
_EMOJI = rf"(?:\p{{RI}}\p{{RI}}|{_PICTURE}(?:\u200D{_PICTURE})*)"

_WORD = regex.compile(
    rf"{_CONNECTOR}*{_RUN}(?:{_CONNECTOR}+{_RUN})*{_CONNECTOR}*"
    rf"|[\p{{Han}}\p{{Hiragana}}]{_MARKS}"
    rf"|[\p{{LB=Complex_Context}}]+{_MARKS}"
    rf"|{_EMOJI}",
    regex.V1,
)
_ASCII_WORD = re.compile(r"_*(?:(?:[A-Za-z]+(?:[:.'][A-Za-z]+)*|[0-9]+(?:[,;.'][0-9]+)*)_*)+")
_ASCII_START, _ASCII_CONNECTORS = re.compile(r"\w"), re.compile(r"_+")
_START = regex.compile(
    r"[\p{WB=ALetter}\p{WB=Hebrew_Letter}\p{WB=Numeric}\p{WB=Katakana}\p{WB=ExtendNumLet}\u202F\p{Han}\p{Hiragana}"
    rf"\p{{LB=Complex_Context}}\p{{RI}}{_PICTURES}]",
    regex.V1,
)
"""What a word can begin with."""
_CONNECTORS = regex.compile(rf"{_CONNECTOR}++", regex.V1)


def words(text: str) -> list[str]:
    """The words of a text as Lucene's `StandardTokenizer` finds them, in linear time.

    >>> words("Can't stop: 3.14 (or 1,000) U.S. dollars")
    ["Can't", 'stop', '3.14', 'or', '1,000', 'U.S', 'dollars']
    """
    ascii_ = text.isascii()
    if len(text) <= MAX_TERM_CHARS and (ascii_ or _utf16_length(text) <= MAX_TERM_CHARS):
        pattern: Any = _ASCII_WORD if ascii_ else _WORD
        found: list[str] = [text] if ascii_ and text.isalnum() else pattern.findall(text)
        return found
    return _words_in_windows(text, ascii_)


def _words_in_windows(text: str, ascii_: bool) -> list[str]:
    """Lucene reads `MAX_TERM_CHARS` UTF-16 units from the start of a word, and cuts the word there. So nothing here
    reads further, which also keeps the time linear in the text."""
    patterns: tuple[Any, Any, Any] = (
        (_ASCII_WORD, _ASCII_START, _ASCII_CONNECTORS) if ascii_ else (_WORD, _START, _CONNECTORS)
    )
    word, start, connectors = patterns
    narrow = ascii_ or max(text) < "\U00010000"
    found, position = [], 0
    while position < len(text):
        if not start.match(text, position):
            if not (begin := start.search(text, position)):
                break
            position = begin.start()
        window = position + MAX_TERM_CHARS
        if not narrow:
            window = position + len(_fitting(text[position:window]))
        if match := word.match(text, position, window):
            found.append(match.group())
            position = match.end()
        elif run := connectors.match(text, position):
            # Underscores are a word only with a letter or digit in the window: skip to where it may include one.
            position = max(position + 1, run.end() - MAX_TERM_CHARS + 1)
            if not word.match(text, run.end(), run.end() + MAX_TERM_CHARS):
                position = max(position, run.end())
        else:
            position += 1
    return found


def _utf16_length(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _fitting(text: str) -> str:
    """The longest prefix of a text within `MAX_TERM_CHARS` UTF-16 units; no character is cut in half."""
    units = text.encode("utf-16-le", "surrogatepass")[: 2 * MAX_TERM_CHARS]
    return units.decode("utf-16-le", "ignore")


def standard_terms(text: str) -> list[str]:
    """Words in lower case: the analyzer `standard`."""
    return [_lower(word) for word in words(text)]


def english_terms(text: str) -> list[str]:
    """The analyzer `english`.

    >>> english_terms("The director's films were shown at universities")
    ['director', 'film', 'were', 'shown', 'univers']
    """
    return [term for word in words(text) if (term := _english_term(word))]


def _lower(word: str) -> str:
    # Character by character, as Java does: no two-character İ, no final sigma.
    return word.lower() if word.isascii() else word.replace("İ", "i").replace("Σ", "σ").lower()


def _english_term(word: str) -> str:
    """The term of one word; empty for a stop word."""
    if word[-1] in "sS" and word[-2:-1] in ("'", "’", "＇"):
        word = word[:-2]
    word = _lower(word)
    if word in STOP_WORDS:
        return ""
    return _stem(word) if len(word) > 2 else word


_stemmer = Stemmer.Stemmer("porter", 0)  # without a cache: chunks are cached below


def _stem(word: str) -> str:
    """Porter's stemmer as in Lucene.

    Snowball's `porter` omits three steps of Lucene's: the suffixes bli -> ble and logi -> log (a later
    change by Porter), and reducing a doubled letter before -ed or -ing for *any* consonant (trekk-ing -> trek). The
    omissions show at the end of the stem, so they are corrected there.
    """
    stem: str = _stemmer.stemWord(word)
    if stem[-1:] == stem[-2:-1]:
        if stem[-1] not in "aeiouylsz" and _PARTICIPLE.fullmatch(word, len(stem)):
            stem = _stemmer.stemWord(stem[:-1])
    elif stem.endswith("logi"):
        if _PLAIN_I.fullmatch(word, len(stem) - 1) and _has_measure(stem[:-4]):
            stem = stem[:-1]
    elif stem.endswith("bli") and _PLAIN_I.fullmatch(word, len(stem) - 1) and _has_measure(stem[:-3]):
        stem = _stemmer.stemWord(stem[:-1] + "e")
    return stem


_PARTICIPLE = re.compile("(?:ed|ing)s?")
_PLAIN_I = re.compile("i(?:ed|ing)?s?|ies|y(?:ed|ing)?s?")  # endings that reach Porter's step 2 as a plain i


def _has_measure(stem: str) -> bool:
    """Whether a vowel is followed by a consonant somewhere (Porter's m > 0). A y after a consonant is a vowel."""
    vowel = False
    for letter in stem:
        was_vowel, vowel = vowel, letter in "aeiou" or (letter == "y" and not vowel and letter is not stem[0])
        if was_vowel and not vowel:
            return True
    return False


class Analyzer:
    """A named analyzer that caches the terms of each chunk of text between spaces.

    Words never span a space, and natural text repeats its words: one dictionary lookup replaces most of the work.
    Safe to use from several threads.
    """

    _CACHED_CHUNKS = 500_000
    _CACHED_CHARS = 64

    def __init__(self, name: str = "english") -> None:
        if name not in _ANALYZERS:
            raise InputError(f"There is no analyzer {name!r}: choose one of {', '.join(_ANALYZERS)}.")
        self.name = name
        self._terms_of = _ANALYZERS[name]
        self._cache = _Chunks(self._terms_of, self._CACHED_CHUNKS, self._CACHED_CHARS)

    def joined(self, text: str) -> str:
        """The terms of a text, separated by one or more spaces."""
        if "\u202f" in text:  # the only Unicode space that joins words (class ExtendNumLet)
            return " ".join(self._terms_of(text))
        return " ".join(map(self._cache.__getitem__, text.split()))

    def terms(self, text: str) -> list[str]:
        """The terms of a text in order, with repetitions."""
        return [term for term in self.joined(text).split(" ") if term]


_AROUND_WORDS = ".,;:!?()[]\"'-–“”’"
"""Characters that are never part of a word at its ends, so that `film,` and `(film` share the cache entry of `film`."""


class _Chunks(dict[str, str]):
    def __init__(self, terms_of: Callable[[str], list[str]], cached_chunks: int, cached_chars: int) -> None:
        super().__init__()
        self._terms_of = terms_of
        self._cached_chunks = cached_chunks
        self._cached_chars = cached_chars

    def __missing__(self, chunk: str) -> str:
        bare = chunk.strip(_AROUND_WORDS)
        plain = bare != chunk and bare.isascii() and bare.isalnum()
        terms = self[bare] if plain else " ".join(self._terms_of(chunk))
        if len(chunk) <= self._cached_chars:
            if len(self) >= self._cached_chunks:
                self.clear()
            self[chunk] = terms
        return terms


_ANALYZERS: dict[str, Callable[[str], list[str]]] = {"english": english_terms, "standard": standard_terms}
