"""What every search engine looks like from the rest of the code."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from r1searcher.corpora.passage import Passage
from r1searcher.errors import RetrieverError


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that a query found, with the engine's own score (higher is better)."""

    passage: Passage
    score: float


@dataclass(frozen=True, slots=True)
class Health:
    """What a retriever says of itself: its name, how many passages it holds, a hash of corpus and settings."""

    name: str
    passages: int
    settings_hash: str


class IndexDamagedError(RetrieverError):
    """The files of an index are not those that were built: no search is answered until they are again."""


class Retriever(Protocol):
    """A search engine. All methods are coroutines and never block the event loop they run on."""

    async def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """One list of at most `top_k` hits a query, best first, equal scores in corpus order.

        An empty list means that nothing matched. Raises `RetrieverError` when the engine could not answer.
        """
        ...

    async def health(self) -> Health:
        """Raises `RetrieverError` when the engine is not there."""
        ...

    async def aclose(self) -> None: ...


MAX_TOP_K = 1000
"""Passages per query that commands and the server accept."""

MAX_QUERY_CHARS = 4096
"""What is searched of a query; the rest is left out. A turn of 512 tokens is about half of it."""


def clean_query(query: str) -> str:
    """A query that every engine can take: cut to `MAX_QUERY_CHARS`, and no lone surrogates, which UTF-8 cannot hold."""
    return query[:MAX_QUERY_CHARS].encode("utf-8", "replace").decode()
