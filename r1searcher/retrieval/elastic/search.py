"""Searches of an index: all queries of a call are one request, each with its own answer."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, Field

from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError, RetrieverError
from r1searcher.retrieval.base import Health, Hit, SearchResult, Span, clean_query
from r1searcher.retrieval.elastic.server import CONNECTIONS, Address, lines, malformed, read, translated

MAX_TOP_K = 10_000
"""The servers' default `max_result_window`."""

H = TypeVar("H", bound=BaseModel)


class _Hits(BaseModel, Generic[H]):
    hits: list[H]


class _Shards(BaseModel):
    failed: int


class Answer(BaseModel, Generic[H]):
    """The result of one query of an msearch, or its error."""

    error: Any = None
    status: int = 500
    timed_out: bool = False
    shards: _Shards = Field(_Shards(failed=0), alias="_shards")
    hits: _Hits[H] | None = None


class Answers(BaseModel, Generic[H]):
    responses: list[Answer[H]]


class ElasticIndex(ABC, Generic[H]):
    """A retriever of one index. Searches run in threads, and `Batcher` limits their number.

    A subclass says what a hit looks like (`answers`), how to ask, and what passages the hits are.
    """

    answers: type[Answers[H]]

    def __init__(self, address: Address, timeout_s: float) -> None:
        self._address = address
        self._connection = address.connect(timeout_s)
        self._pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix=address.product.scheme)

    @abstractmethod
    def _queries(self, texts: Sequence[str], top_k: int) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
        """The options of the searches, and the body of each."""

    @abstractmethod
    def _passages(self, hits: Sequence[H]) -> list[Hit]:
        """The hits of one query. Raises `RetrieverError` if they are unusable."""

    @abstractmethod
    def _lookup(self, id_: str) -> Mapping[str, Any]:
        """The body of a search for the first passage with an id. Raises `NoLookupError` for an index without them."""

    @abstractmethod
    def _health(self) -> Health: ...

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        if not queries or top_k < 1:
            return [SearchResult() for _ in queries]
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._search, queries, top_k)

    async def passage(self, id_: str) -> Passage | None:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._passage, id_)

    async def health(self) -> Health:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._health)

    async def aclose(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._connection.close()

    def _search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        if top_k > MAX_TOP_K:
            raise InputError(
                f"{self._address.product.name} returns at most {MAX_TOP_K:,} passages per query, not {top_k:,}."
            )
        options, bodies = self._queries([clean_query(query) for query in queries], top_k)
        started = time.perf_counter()
        answers = self._answers(options, bodies)
        spans = (Span(self._address.product.scheme, time.perf_counter() - started),)
        return [self._result(answer, top_k, spans) for answer in answers]

    def _passage(self, id_: str) -> Passage | None:
        if not id_:  # the servers refuse to look for it
            return None
        [answer] = self._answers({}, [self._lookup(id_)])
        hits = self._hits(answer)
        return hits[0].passage if hits else None

    def _answers(self, options: Mapping[str, Any], bodies: Sequence[Mapping[str, Any]]) -> list[Answer[H]]:
        """One request for all searches."""
        header = {"index": self._address.name, "allow_partial_search_results": False, **options}
        asked = lines([line for body in bodies for line in (header, body)])
        found = self._connection.request("POST", "/_msearch", asked)
        answers = read(self._address, self.answers, found).responses
        if len(answers) != len(bodies):
            raise malformed(self._address, f"{len(answers)} answers to {len(bodies)} queries")
        return answers

    def _result(self, answer: Answer[H], top_k: int, spans: tuple[Span, ...]) -> SearchResult:
        """Hits or the error of one query: a query that the server rejects does not affect the others."""
        try:
            return SearchResult(tuple(self._hits(answer)[:top_k]), spans=spans)
        except RetrieverError as error:
            return SearchResult(error=error, spans=spans)

    def _hits(self, answer: Answer[H]) -> list[Hit]:
        if answer.error is not None:
            raise translated(self._address, answer.status, {"error": answer.error})
        if answer.timed_out or answer.shards.failed:
            raise RetrieverError(f"{self._address.where} could not search all of its shards.", transient=True)
        if answer.hits is None:
            raise malformed(self._address, "an answer has no hits")
        return self._passages(answer.hits.hits)
