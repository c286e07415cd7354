"""Waiting out an outage: never an empty result, an end to the waiting, and a sentence at its beginning and end."""

import asyncio
from collections.abc import Sequence

import pytest

from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError, RetrieverError, RunStopped
from r1searcher.retrieval import open_retriever
from r1searcher.retrieval.base import Health, Hit
from r1searcher.retrieval.links.retry import RetryingRetriever
from tests.common.servers import answer, raw_server

HIT = Hit(Passage("1", "T", "x"), 1.0)


class Engine:
    """Fails so many times, then answers; for the query "bad" it always fails."""

    def __init__(self, failures: int = 0, transient: bool = True) -> None:
        self.failures = failures
        self.transient = transient
        self.calls = 0

    async def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        self.calls += 1
        if self.failures or "bad" in queries:
            self.failures = max(0, self.failures - 1)
            raise RetrieverError("connection refused", transient=self.transient)
        return [[HIT] for _ in queries]

    async def health(self) -> Health:
        return Health("engine", 1, "")

    async def aclose(self) -> None: ...


def test_an_outage_pauses_and_then_gives_the_real_result() -> None:
    said: list[str] = []
    retriever = RetryingRetriever(Engine(2), limit=600.0, notify=said.append)
    assert asyncio.run(retriever.search(["q"], 1)) == [[HIT]]
    waiting, back = said
    assert "waiting for the search engine" in waiting
    assert "connection refused" in waiting
    assert "the search engine is back" in back


def test_past_the_limit_the_run_stops_with_the_reason() -> None:
    retriever = RetryingRetriever(Engine(1_000_000), limit=0.2, notify=lambda _: None)
    with pytest.raises(RunStopped, match=r"the search engine has been down for .* connection refused"):
        asyncio.run(retriever.search(["q"], 1))


def test_one_query_that_always_fails_stops_the_run_while_others_succeed() -> None:
    """Defect C.2: every success of another query set the one clock back, for ever."""
    said: list[str] = []
    retriever = RetryingRetriever(Engine(), limit=1.0, notify=said.append)

    async def run() -> None:
        bad = asyncio.create_task(retriever.search(["bad"], 1))
        while not bad.done():
            assert await retriever.search(["good"], 1) == [[HIT]]
            await asyncio.sleep(0.01)
        await bad

    with pytest.raises(RunStopped, match=r"the search for .bad. has failed for .* while others succeed"):
        asyncio.run(asyncio.wait_for(run(), 300))
    assert [sentence.split(",")[0] for sentence in said] == ["waiting for the search engine"]


def test_an_error_that_will_not_pass_is_raised_at_once() -> None:
    engine, said = Engine(1, transient=False), []
    retriever = RetryingRetriever(engine, limit=600.0, notify=said.append)
    with pytest.raises(RetrieverError, match="connection refused"):
        asyncio.run(retriever.search(["q"], 1))
    assert engine.calls == 1
    assert said == []


def test_an_outage_is_said_once_however_many_wait_and_however_long() -> None:
    said: list[str] = []
    retriever = RetryingRetriever(Engine(64 * 3), limit=600.0, notify=said.append)

    async def everyone() -> None:
        await asyncio.gather(*(retriever.search(["q"], 1) for _ in range(64)))

    asyncio.run(everyone())
    assert len(said) == 2
    assert "waiting" in said[0]
    assert "is back" in said[1]
    retriever._retriever = Engine(1)
    asyncio.run(retriever.search(["q"], 1))
    assert len(said) == 4, "the next outage is another one"


def test_an_episode_that_is_given_up_waits_no_longer() -> None:
    said: list[str] = []
    retriever = RetryingRetriever(Engine(1_000_000), limit=600.0, notify=said.append)

    async def run() -> None:
        waiting = asyncio.create_task(retriever.search(["q"], 1))
        while not said:
            await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(run())
    assert retriever._waiting == 0
    assert len(said) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_a_server_that_refuses_stops_the_run_at_once(status: int) -> None:
    """Defect C.2: a 4xx counted as an outage."""
    with raw_server(answer(b"no", f"{status} No")) as server:
        retriever = RetryingRetriever(open_retriever(f"{server.url}/retrieve"), limit=600.0, notify=lambda _: None)
        with pytest.raises(RetrieverError, match=f"status {status}: no"):
            asyncio.run(asyncio.wait_for(retriever.search(["q"], 1), 300))
    assert len(server.requests) == 1


def test_a_server_that_is_busy_is_asked_again() -> None:
    with raw_server(answer(b"wait", "429 Busy", "Retry-After: 1")) as server:

        def say(sentence: str) -> None:
            server.behave = answer(b'{"result": [[{"id": "1", "title": "T", "text": "x"}]]}')

        retriever = RetryingRetriever(open_retriever(f"{server.url}/retrieve"), limit=600.0, notify=say)
        assert asyncio.run(retriever.search(["q"], 1)) == [[HIT]]
    assert len(server.requests) == 2


def test_wrong_settings_are_not_an_outage() -> None:
    class Wrong(Engine):
        async def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
            raise InputError("no such index")

    with pytest.raises(InputError):
        asyncio.run(RetryingRetriever(Wrong(), 600.0, print).search(["q"], 1))
