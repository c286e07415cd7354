"""The common base of wrappers."""

import copy
from collections.abc import Sequence
from typing import Self

from r1searcher.retrieval.base import EpisodeContext, Health, Retriever, SearchResult, bind


class Link:
    """A retriever around another one: passes on searches, health, the end and the episode; a subclass adds to them.

    The copy from `for_episode` shares every attribute except `_retriever`.
    """

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        return await self._retriever.search(queries, top_k)

    def for_episode(self, episode: EpisodeContext) -> Self:
        inner = bind(self._retriever, episode)
        if inner is self._retriever:
            return self
        bound = copy.copy(self)
        bound._retriever = inner
        return bound

    async def health(self) -> Health:
        return await self._retriever.health()

    async def aclose(self) -> None:
        await self._retriever.aclose()
