"""A retriever that waits out an outage of the one behind it."""

import asyncio
import time
from collections.abc import Callable, Sequence

from r1searcher.errors import RetrieverError, RunStopped
from r1searcher.retrieval.base import Health, Hit, Retriever

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0


class PatientRetriever:
    """Retries failed searches with growing pauses, so that an outage pauses a run and never becomes a reward.

    `limit` is the longest outage in seconds; past it `RunStopped` is raised. `say` gets a heartbeat sentence at each
    retry, at most one a `LONGEST_PAUSE` however many episodes wait.
    """

    def __init__(self, retriever: Retriever, limit: float, say: Callable[[str], None]) -> None:
        self._retriever = retriever
        self._limit = limit
        self._say = say
        self._down_since: float | None = None
        self._last_said = float("-inf")

    async def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        pause = FIRST_PAUSE
        while True:
            try:
                found = await self._retriever.search(queries, top_k)
            except RetrieverError as error:
                now = time.monotonic()
                if self._down_since is None:
                    self._down_since = now
                down = now - self._down_since
                if down >= self._limit:
                    raise RunStopped(f"the search engine has been down for {down:.0f} s: {error}") from error
                if now - self._last_said >= LONGEST_PAUSE:
                    self._last_said = now
                    self._say(f"waiting for the search engine, {down:.0f} s of {self._limit:.0f} s: {error}")
                await asyncio.sleep(min(pause, max(0.05, self._limit - down)))
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                if self._down_since is not None:
                    self._say(f"the search engine is back after {time.monotonic() - self._down_since:.0f} s")
                    self._down_since = None
                return found

    async def health(self) -> Health:
        return await self._retriever.health()

    async def aclose(self) -> None:
        await self._retriever.aclose()
