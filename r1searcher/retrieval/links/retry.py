"""A retriever that waits until the outage of another one ends."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from r1searcher.common.retry import RetryPolicy
from r1searcher.common.terminal import visible
from r1searcher.errors import RetrieverError, RunStopped, ServiceError
from r1searcher.retrieval.base import Retriever, SearchResult, Span, search_all
from r1searcher.retrieval.links.base import Link


class RetryingRetriever(Link):
    """Retries searches with transient errors, so that an outage pauses a run and never becomes a reward.

    If single queries of a call fail, only those with a transient error are retried. Every call has its own outage
    clock, from its first failure: one that keeps failing while others succeed also ends in `RunStopped` after `limit`
    seconds. A permanent error is raised at once, or left in its query's result.

    An outage lasts as long as any search waits. `notify` gets one sentence when it begins and one when it is over.
    """

    def __init__(self, retriever: Retriever, limit: float, notify: Callable[[str], None]) -> None:
        super().__init__(retriever)
        self._policy = RetryPolicy(deadline=limit)
        self._outage = _Outage(limit, notify)

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        results: dict[int, SearchResult] = {}
        failed_at: float | None = None

        async def attempt() -> None:
            missing = [place for place in range(len(queries)) if place not in results]
            found = await search_all(self._retriever, [queries[place] for place in missing], top_k)
            again = None
            for place, result in zip(missing, found, strict=True):
                if result.error is not None and result.error.transient:
                    again = again or result.error
                else:
                    results[place] = _with_wait(result, failed_at)
            if again is not None:
                raise again

        def on_failure(error: ServiceError) -> None:
            nonlocal failed_at
            if failed_at is None:
                failed_at = time.monotonic()
                self._outage.begin_waiting(error)

        back = False
        try:
            await self._policy.acall(attempt, on_failure=on_failure)
            back = True
        except RetrieverError as error:
            if failed_at is None or not error.transient:
                raise
            first = next((query for place, query in enumerate(queries) if place not in results), "")
            raise RunStopped(self._outage.gave_up(first, failed_at, error)) from error
        finally:
            if failed_at is not None:
                self._outage.end_waiting(back)
        self._outage.last_success = time.monotonic()
        return [results[place] for place in range(len(queries))]


def _with_wait(result: SearchResult, failed_at: float | None) -> SearchResult:
    """The result, with the seconds since the first failure."""
    if failed_at is None:
        return result
    return replace(result, spans=(*result.spans, Span("retry", time.monotonic() - failed_at)))


class _Outage:
    """The outage state that all searches of a run share."""

    def __init__(self, limit: float, notify: Callable[[str], None]) -> None:
        self._limit = limit
        self._notify = notify
        self._down_since = 0.0
        self.waiting = 0
        self.last_success = float("-inf")

    def begin_waiting(self, error: ServiceError) -> None:
        self.waiting += 1
        if self.waiting == 1:
            self._down_since = time.monotonic()
            self._notify(f"waiting for the search engine, at most {self._limit:.0f} s: {error}")

    def end_waiting(self, back: bool) -> None:
        self.waiting -= 1
        if back and not self.waiting:
            self._notify(f"the search engine is back after {time.monotonic() - self._down_since:.0f} s")

    def gave_up(self, query: str, failed_at: float, error: ServiceError) -> str:
        down = time.monotonic() - failed_at
        if self.last_success > failed_at + down / 2:  # right after the first failure, others may still succeed
            return f"the search for {visible(query[:80])!r} has failed for {down:.0f} s while others succeed: {error}"
        return f"the search engine has been down for {down:.0f} s: {error}"
