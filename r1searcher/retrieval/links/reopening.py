"""An index on disk that is reopened after damage to its files."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from r1searcher.corpora.passage import Passage
from r1searcher.errors import R1Error
from r1searcher.retrieval.base import Health, IndexDamagedError, Retriever, SearchResult, passage_of

_T = TypeVar("_T")

_PAUSE, _LOAD = 0.2, 0.1
"""Minimum seconds between two attempts, and the share of the time that attempts on a large index may take."""

Open = Callable[[bool], tuple[Retriever, str]]
"""Opens the index and gives its fingerprint; with True every file is checked, since it was found damaged before."""


class ReopeningRetriever:
    """The retriever of a server process that survives damage to its index: it works again once the files are restored.

    Until then each search raises the error. `fingerprint` identifies the only index that is opened: with another one
    in the same folder, processes of the same server would give different results. The constructor makes the first
    attempt.
    """

    def __init__(self, index: Open, name: str, fingerprint: str) -> None:
        self._index = index
        self._name = name
        self._fingerprint = fingerprint
        self._retriever: Retriever | None = None
        self._error: R1Error | None = None
        self._next_attempt = float("-inf")
        self._opening = asyncio.Lock()
        self._open()

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        return await self._ask(lambda retriever: retriever.search(queries, top_k))

    async def passage(self, id_: str) -> Passage | None:
        return await self._ask(lambda retriever: passage_of(retriever, id_))

    async def health(self) -> Health:
        return await self._ask(lambda retriever: retriever.health())

    async def aclose(self) -> None:
        if self._retriever is not None:
            await self._retriever.aclose()

    async def _ask(self, call: Callable[[Retriever], Awaitable[_T]]) -> _T:
        retriever = await self._opened()
        try:
            return await call(retriever)
        except IndexDamagedError as error:
            self._give_up(retriever, error)
            raise

    async def _opened(self) -> Retriever:
        if self._retriever is not None:
            return self._retriever
        async with self._opening:
            if self._retriever is None:
                if time.monotonic() >= self._next_attempt:
                    await asyncio.to_thread(self._open)
                if self._error is not None:
                    raise IndexDamagedError(str(self._error)) from self._error
        assert self._retriever is not None
        return self._retriever

    def _open(self) -> None:
        began = time.monotonic()
        try:
            retriever, fingerprint = self._index(self._error is not None)
        except R1Error as error:
            self._error = error
        else:
            if fingerprint != self._fingerprint:
                self._error = IndexDamagedError(f"{self._name} now has a different index: restart the server.")
            else:
                self._retriever, self._error = retriever, None
        ended = time.monotonic()
        self._next_attempt = ended + max(_PAUSE, (ended - began) / _LOAD)

    def _give_up(self, retriever: Retriever, error: IndexDamagedError) -> None:
        """Drops a retriever. It is not closed: other searches may still use it, and end in an error."""
        if self._retriever is retriever:
            self._retriever, self._error = None, error
            self._next_attempt = time.monotonic() + _PAUSE
