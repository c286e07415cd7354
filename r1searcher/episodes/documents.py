"""Passages as the model reads them: sanitized, numbered, cut to fit."""

import unicodedata
from collections.abc import Callable, Iterable, Sequence

from r1searcher.episodes.protocol import DOCUMENTS, END_DOCUMENTS, TAGS
from r1searcher.retrieval.base import Hit

NOTHING_FOUND = "No passage matched the query."


def sanitize(text: str, special_tokens: Iterable[str] = ()) -> str:
    """Text from outside on one line, with nothing in it that the protocol or the tokenizer would take for its own.

    A tag keeps its name and loses its brackets. Compatibility forms (full-width brackets, say) count as the plain
    ones, because some tokenizers fold them.

    >>> sanitize("He said <answer> yes </answer>")
    'He said (answer) yes (/answer)'
    """
    line = " ".join(text.split())
    reserved = (*TAGS, *special_tokens)
    folded = " ".join(unicodedata.normalize("NFKC", line).split())  # folding may make new spaces
    if any(tag in folded for tag in reserved):
        line = folded
    for tag in reserved:
        if tag in line:
            line = line.replace(tag, f"({tag.strip('<|>[]')})" if tag.strip("<|>[]") else " ")
    return line


def render(documents: Sequence[tuple[str, str]], max_words: int) -> str:
    """The block appended behind a query: (title, text) pairs, texts cut to `max_words` words (method: R1-Searcher)."""
    lines = [
        f"({number})Title: {title} Text: {' '.join(text.split()[:max_words])}"
        for number, (title, text) in enumerate(documents, start=1)
    ]
    return "\n".join(["\n", DOCUMENTS, *(lines or [NOTHING_FOUND]), END_DOCUMENTS, "\n"])


def fit(
    hits: Sequence[Hit],
    max_words: int,
    room: int,
    length: Callable[[str], int],
    special_tokens: Iterable[str] = (),
) -> tuple[str, int] | None:
    """The fullest documents block of at most `room` tokens and how many hits it shows; None when none fits.

    Passages are shortened together first, down to a fifth of `max_words`; below that the last ones are left out, since
    a few words of many passages answer nothing. `length` counts the tokens of a text.
    """
    specials = tuple(special_tokens)
    documents = [(sanitize(h.passage.title, specials), sanitize(h.passage.text, specials)) for h in hits]
    shortest = max(1, max_words // 5)
    for shown in range(len(documents), 0, -1):
        block = render(documents[:shown], max_words)
        if length(block) <= room:
            return block, shown
        if length(render(documents[:shown], shortest)) > room:
            continue
        low, high = shortest, max_words  # low fits, high does not
        while high - low > 1:
            middle = (low + high) // 2
            if length(render(documents[:shown], middle)) <= room:
                low = middle
            else:
                high = middle
        return render(documents[:shown], low), shown
    if documents:
        return None
    block = render([], max_words)
    return (block, 0) if length(block) <= room else None
