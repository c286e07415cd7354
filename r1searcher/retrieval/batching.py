"""Searches queries of different requests or episodes together; each gets its own outcome."""

import asyncio
import os
from collections import deque
from collections.abc import Sequence

from r1searcher.corpora.passage import Passage
from r1searcher.errors import RetrieverError
from r1searcher.retrieval.base import Health, Retriever, SearchResult, is_outage, passage_of, search_all

BATCH = 64
_Waiting = tuple[str, asyncio.Future[SearchResult]]
_Outcome = SearchResult | BaseException


class Batcher:
    """A retriever that sends queries of another one together, at most `BATCH` at once.

    While `most_searches` of its searches run (one per core unless given), queries that arrive wait for the next one.
    Not for a retriever that needs the episode, which it does not pass on.
    """

    def __init__(self, retriever: Retriever, most_searches: int | None = None) -> None:
        self._retriever = retriever
        self._waiting: dict[int, deque[_Waiting]] = {}
        self._workers: set[asyncio.Task[None] | None] = set()
        self._most_workers = most_searches or os.cpu_count() or 1

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        """One result per query. A `RetrieverError` of the retriever is in the results of the queries that it affects,
        and raised if it affects all of them; so is any other exception."""
        loop = asyncio.get_running_loop()
        answers: list[asyncio.Future[SearchResult]] = [loop.create_future() for _ in queries]
        self._waiting.setdefault(top_k, deque()).extend(zip(queries, answers, strict=True))
        if len(self._workers) < self._most_workers:
            self._workers.add(asyncio.create_task(self._work()))
        outcomes = await asyncio.gather(*answers, return_exceptions=True)
        failed = sum(isinstance(outcome, BaseException) for outcome in outcomes)
        results = []
        for outcome in outcomes:
            if isinstance(outcome, RetrieverError) and failed < len(queries):
                outcome = SearchResult(error=outcome)
            if isinstance(outcome, BaseException):
                raise outcome
            results.append(outcome)
        return results

    async def passage(self, id_: str) -> Passage | None:
        return await passage_of(self._retriever, id_)

    async def health(self) -> Health:
        return await self._retriever.health()

    async def aclose(self) -> None:
        await self._retriever.aclose()

    async def _work(self) -> None:
        try:
            await self._search_waiting()
        finally:  # and not in a later callback: queries that arrive in between would wait forever
            self._workers.discard(asyncio.current_task())

    async def _search_waiting(self) -> None:
        while self._waiting:
            top_k, queue = next(iter(self._waiting.items()))
            batch = [queue.popleft() for _ in range(min(BATCH, len(queue)))]
            del self._waiting[top_k]
            if queue:
                self._waiting[top_k] = queue  # after those with another number of passages
            try:
                outcomes = await self._outcomes([query for query, _ in batch], top_k)
            except BaseException:  # canceled: the server ends
                outcomes = [RetrieverError("The search was interrupted.", transient=True)] * len(batch)
                raise
            finally:
                _settle([answer for _, answer in batch], outcomes)

    async def _outcomes(self, queries: Sequence[str], top_k: int) -> list[_Outcome]:
        """A result or an exception per query. One bad query must not fail the others of its batch: if the call fails as
        a whole, they are retried one by one, unless the engine is down or its index damaged. Then they would all fail,
        each after its timeout."""
        try:
            return list(await search_all(self._retriever, queries, top_k))
        except Exception as error:
            if is_outage(error) or len(queries) == 1:
                return [error] * len(queries)
        alone = (search_all(self._retriever, [query], top_k) for query in queries)
        outcomes = await asyncio.gather(*alone, return_exceptions=True)
        return [outcome if isinstance(outcome, BaseException) else outcome[0] for outcome in outcomes]


def _settle(answers: Sequence[asyncio.Future[SearchResult]], outcomes: Sequence[_Outcome]) -> None:
    for answer, outcome in zip(answers, outcomes, strict=True):
        if answer.done():  # its client may have disconnected
            continue
        if isinstance(outcome, BaseException):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)
