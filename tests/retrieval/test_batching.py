"""Queries of different requests in one search: one that fails is alone in it."""

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from r1searcher.corpora.passage import Passage
from r1searcher.errors import RetrieverError
from r1searcher.retrieval.base import Hit, IndexDamagedError, Retriever, SearchResult
from r1searcher.retrieval.batching import BATCH, Batcher


class Engine:
    """Finds the query itself, refuses the query "refused", and fails on every batch with the word of an error."""

    def __init__(self, errors: dict[str, Exception] | None = None) -> None:
        self.batches: list[list[str]] = []
        self._errors = errors or {}

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        self.batches.append(list(queries))
        await asyncio.sleep(0)
        for query in queries:
            if query in self._errors:
                raise self._errors[query]
        return [
            SearchResult(error=RetrieverError("refused"))
            if query == "refused"
            else SearchResult((Hit(Passage(query, "", ""), 1.0),) * top_k)
            for query in queries
        ]


def batcher(engine: object) -> Batcher:
    return Batcher(cast(Retriever, engine))


async def test_a_query_that_fails_does_not_fail_the_others_of_its_batch() -> None:
    engine = Engine({"bad": RetrieverError("status 400"), "worse": KeyError("x")})
    queries = [f"q{n}" for n in range(60)] + ["bad", "refused", "worse"]
    together = batcher(engine)
    outcomes = await asyncio.gather(*(together.search([query], 1) for query in queries), return_exceptions=True)
    assert max(map(len, engine.batches)) > 1
    bad, refused, worse = outcomes[60:]
    assert isinstance(bad, RetrieverError), "the engine could not answer any query of this call"
    assert isinstance(refused, list)
    assert [str(result.error) for result in refused] == ["refused"]
    assert isinstance(worse, KeyError), "a defect of the engine is not an error of the query"
    for query, outcome in zip(queries[:60], outcomes[:60], strict=True):
        assert isinstance(outcome, list), outcome
        assert [hit.passage.id for hit in outcome[0].require_hits()] == [query]


async def test_a_query_that_fails_is_an_error_among_the_results_of_its_call() -> None:
    results = await batcher(Engine({"bad": RetrieverError("status 400")})).search(["a", "bad"], 1)
    assert [[hit.passage.id for hit in result.hits] for result in results] == [["a"], []]
    assert [str(result.error or "") for result in results] == ["", "status 400"]


async def test_an_engine_that_refuses_one_query_is_asked_once() -> None:
    engine = Engine()
    results = await batcher(engine).search(["a", "refused", "b"], 1)
    assert [[hit.passage.id for hit in result.hits] for result in results] == [["a"], [], ["b"]]
    assert [str(result.error or "") for result in results] == ["", "refused", ""]
    assert engine.batches == [["a", "refused", "b"]]


@pytest.mark.parametrize("error", [RetrieverError("away", transient=True), IndexDamagedError("damaged")])
async def test_an_engine_that_is_away_is_not_asked_query_by_query(error: Exception) -> None:
    engine = Engine({"q0": error})
    with pytest.raises(RetrieverError) as raised:
        await batcher(engine).search([f"q{n}" for n in range(50)], 1)
    assert raised.value is error
    assert len(engine.batches) == 1


async def test_numbers_of_passages_take_turns_and_batches_are_limited() -> None:
    engine = Engine()
    together = batcher(engine)
    many, one = await asyncio.gather(together.search(["many"] * (5 * BATCH), 1), together.search(["one"], 7))
    assert (len(many), len(one[0].hits)) == (5 * BATCH, 7)
    assert max(map(len, engine.batches)) == BATCH
    assert ["one"] in engine.batches[: len(engine.batches) - 1], "before the end of the large request"


async def test_queries_that_arrive_while_the_last_search_ends_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    late: list[asyncio.Task[list[SearchResult]]] = []

    class StopDecision:
        async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
            if not late:  # its first step comes right after this search has ended
                late.append(asyncio.create_task(together.search(["late"], 1)))
            return [SearchResult() for _ in queries]

    together = batcher(StopDecision())
    assert await together.search(["early"], 1) == [SearchResult()]
    assert await asyncio.wait_for(late[0], 60) == [SearchResult()]
