"""A retriever that waits out an outage of another."""

import time
from collections.abc import Callable, Sequence

from r1searcher.common.retry import RetryPolicy
from r1searcher.common.terminal import visible
from r1searcher.errors import RetrieverError, RunStopped, ServiceError
from r1searcher.retrieval.base import Health, Hit, Retriever


class RetryingRetriever:
    """Retries searches that fail for a passing reason, so that an outage pauses a run and never becomes a reward.

    Every search has an outage clock of its own, from its first failure: one that keeps failing while others succeed
    ends in `RunStopped` after `limit` seconds, too. An error that is not transient is raised at once.

    An outage lasts as long as any search waits. `notify` gets one sentence when it begins and one when it is over.
    """

    def __init__(self, retriever: Retriever, limit: float, notify: Callable[[str], None]) -> None:
        self._retriever = retriever
        self._policy = RetryPolicy(deadline=limit)
        self._limit = limit
        self._notify = notify
        self._waiting = 0
        self._down_since = 0.0
        self._last_success = float("-inf")

    async def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        failed_at: float | None = None

        def on_failure(error: ServiceError) -> None:
            nonlocal failed_at
            if failed_at is None:
                failed_at = time.monotonic()
                self._begin_waiting(error)

        back = False
        try:
            found = await self._policy.acall(lambda: self._retriever.search(queries, top_k), on_failure=on_failure)
            back = True
        except RetrieverError as error:
            if failed_at is None or not error.transient:
                raise
            raise RunStopped(self._gave_up(queries, failed_at, error)) from error
        finally:
            if failed_at is not None:
                self._end_waiting(back)
        self._last_success = time.monotonic()
        return found

    def _begin_waiting(self, error: ServiceError) -> None:
        self._waiting += 1
        if self._waiting == 1:
            self._down_since = time.monotonic()
            self._notify(f"waiting for the search engine, at most {self._limit:.0f} s: {error}")

    def _end_waiting(self, back: bool) -> None:
        self._waiting -= 1
        if back and not self._waiting:
            self._notify(f"the search engine is back after {time.monotonic() - self._down_since:.0f} s")

    def _gave_up(self, queries: Sequence[str], failed_at: float, error: ServiceError) -> str:
        down = time.monotonic() - failed_at
        if self._last_success > failed_at + down / 2:  # right after the first failure, others may still come in
            query = visible(next(iter(queries), "")[:80])
            return f"the search for {query!r} has failed for {down:.0f} s while others succeed: {error}"
        return f"the search engine has been down for {down:.0f} s: {error}"

    async def health(self) -> Health:
        return await self._retriever.health()

    async def aclose(self) -> None:
        await self._retriever.aclose()
