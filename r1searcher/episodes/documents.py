"""Passages as the model reads them: sanitized, cut to fit, rendered by the episode's protocol."""

from collections.abc import Iterable, Sequence

from r1searcher.episodes.protocol import Document, EpisodeProtocol
from r1searcher.episodes.tokens import Tokenizer
from r1searcher.retrieval.base import Hit


def documents_of(hits: Sequence[Hit], protocol: EpisodeProtocol, special_tokens: Iterable[str] = ()) -> list[Document]:
    """The texts of hits, sanitized."""
    specials = tuple(special_tokens)
    return [
        Document(protocol.sanitize(hit.passage.title, specials), protocol.sanitize(hit.passage.text, specials))
        for hit in hits
    ]


def block_of(documents: Iterable[Document], protocol: EpisodeProtocol, max_words: int) -> str:
    """The environment's turn, with texts cut to `max_words` words (method: R1-Searcher)."""
    return protocol.render(shortened(documents, max_words))


def shortened(documents: Iterable[Document], max_words: int) -> list[Document]:
    """The documents with their texts cut to `max_words` words."""
    return [Document(title, " ".join(text.split()[:max_words])) for title, text in documents]


def fit(
    hits: Sequence[Hit], protocol: EpisodeProtocol, tokenizer: Tokenizer, max_words: int, max_tokens: int
) -> tuple[str, int] | None:
    """The longest environment turn of at most `max_tokens` tokens and how many hits it shows; None if none fits.

    All passages are shortened equally first, down to a fifth of `max_words`; below that the last ones are dropped,
    since a few words of many passages are useless.
    """

    def block(shown: int, words: int) -> str:
        return block_of(documents[:shown], protocol, words)

    def fits(text: str) -> bool:
        return len(tokenizer.encode(text)) <= max_tokens

    documents = documents_of(hits, protocol, tokenizer.special_tokens)
    shortest = max(1, max_words // 5)
    for shown in range(len(documents), 0, -1):
        if fits(whole := block(shown, max_words)):
            return whole, shown
        if not fits(block(shown, shortest)):
            continue
        low, high = shortest, max_words  # low fits, high does not
        while high - low > 1:
            middle = (low + high) // 2
            if fits(block(shown, middle)):
                low = middle
            else:
                high = middle
        return block(shown, low), shown
    if documents:
        return None
    nothing = protocol.render([])
    return (nothing, 0) if fits(nothing) else None
