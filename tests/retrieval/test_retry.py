"""Waiting for the end of an outage: never an empty result, a time limit, and a sentence when it begins and ends."""

import asyncio
from collections.abc import Sequence

import pytest

from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError, RetrieverError, RunStopped
from r1searcher.retrieval import open_retriever
from r1searcher.retrieval.base import EpisodeContext, Health, Hit, Retriever, SearchResult, bind
from r1searcher.retrieval.links.retry import RetryingRetriever
from tests.common.servers import answer, raw_server

HIT = Hit(Passage("1", "T", "x"), 1.0)
FOUND = SearchResult((HIT,))


class Engine:
    """Fails this many times, then answers; for the query "bad" it always fails."""

    def __init__(self, failures: int = 0, transient: bool = True) -> None:
        self.failures = failures
        self.transient = transient
        self.calls = 0

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        self.calls += 1
        if self.failures or "bad" in queries:
            self.failures = max(0, self.failures - 1)
            raise RetrieverError("connection refused", transient=self.transient)
        return [FOUND for _ in queries]

    async def health(self) -> Health:
        return Health("engine", 1)

    async def aclose(self) -> None: ...


def test_an_outage_pauses_and_then_gives_the_real_result() -> None:
    said: list[str] = []
    retriever = RetryingRetriever(Engine(2), limit=600.0, notify=said.append)
    [result] = asyncio.run(retriever.search(["q"], 1))
    assert result.require_hits() == (HIT,)
    assert [span.link for span in result.spans] == ["retry"]
    waiting, back = said
    assert "waiting for the search engine" in waiting
    assert "connection refused" in waiting
    assert "the search engine is back" in back


def test_past_the_limit_the_run_stops_with_the_reason() -> None:
    retriever = RetryingRetriever(Engine(1_000_000), limit=0.2, notify=lambda _: None)
    with pytest.raises(RunStopped, match=r"the search engine has been down for .* connection refused"):
        asyncio.run(retriever.search(["q"], 1))


def test_one_query_that_always_fails_stops_the_run_while_others_succeed() -> None:
    """Defect C.2: every success of another query reset the shared clock, forever."""
    said: list[str] = []
    retriever = RetryingRetriever(Engine(), limit=1.0, notify=said.append)

    async def run() -> None:
        bad = asyncio.create_task(retriever.search(["bad"], 1))
        while not bad.done():
            assert await retriever.search(["good"], 1) == [FOUND]
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
    assert retriever._outage.waiting == 0
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
        [result] = asyncio.run(retriever.search(["q"], 1))
        assert result.hits == (HIT,)
    assert len(server.requests) == 2


def test_wrong_settings_are_not_an_outage() -> None:
    class Wrong(Engine):
        async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
            raise InputError("no such index")

    with pytest.raises(InputError):
        asyncio.run(RetryingRetriever(Wrong(), 600.0, print).search(["q"], 1))


class QueryByQuery(Engine):
    """Refuses "never" for good, and "later" until its third call."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[str]] = []

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        self.asked.append(list(queries))
        busy = SearchResult(error=RetrieverError("busy", transient=True))
        refused = SearchResult(error=RetrieverError("refused"))
        late = FOUND if len(self.asked) >= 3 else busy
        return [{"later": late, "never": refused}.get(query, FOUND) for query in queries]


def test_only_queries_that_may_succeed_later_are_asked_again() -> None:
    engine, said = QueryByQuery(), []
    retriever = RetryingRetriever(engine, limit=600.0, notify=said.append)
    results = asyncio.run(retriever.search(["a", "later", "never", "b"], 1))
    assert engine.asked == [["a", "later", "never", "b"], ["later"], ["later"]]
    assert [result.hits for result in results] == [(HIT,), (HIT,), (), (HIT,)]
    assert [str(result.error or "") for result in results] == ["", "", "refused", ""]
    assert [[span.link for span in result.spans] for result in results] == [[], ["retry"], [], []]
    assert ["waiting" in sentence for sentence in said] == [True, False]


def test_a_query_that_stays_busy_stops_the_run_and_is_never_an_empty_result() -> None:
    class AlwaysBusy(QueryByQuery):
        async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
            return [SearchResult(error=RetrieverError("busy", transient=True)) for _ in queries]

    with pytest.raises(RunStopped, match="busy"):
        asyncio.run(RetryingRetriever(AlwaysBusy(), 0.2, lambda _: None).search(["q"], 1))


def test_an_engine_with_another_number_of_results_is_an_error() -> None:
    class Short(Engine):
        async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
            return [FOUND for _ in queries][1:]

    with pytest.raises(RetrieverError, match="returned 1 results for 2 queries"):
        asyncio.run(RetryingRetriever(Short(), 600.0, print).search(["a", "b"], 1))


class Curious(Engine):
    """Asks for the episode, and is down for its first search."""

    def __init__(self, told: list[EpisodeContext], episode: EpisodeContext | None = None) -> None:
        super().__init__(failures=1)
        self.told, self.episode = told, episode

    def for_episode(self, episode: EpisodeContext) -> Retriever:
        return Curious(self.told, episode)

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        assert self.episode is not None
        self.told.append(self.episode)
        return await super().search(queries, top_k)


def test_the_episode_reaches_the_engine_that_asks_for_it_through_the_wrapper() -> None:
    told: list[EpisodeContext] = []
    said: list[str] = []
    episode = EpisodeContext(id="q1", question="Where?", gold_answers=("Oslo",), step=3, search=2)
    retriever = RetryingRetriever(Curious(told), limit=600.0, notify=said.append)

    async def twice() -> list[list[SearchResult]]:
        bound = [bind(retriever, episode) for _ in range(2)]
        return await asyncio.gather(*(one.search(["q"], 1) for one in bound))

    assert [[result.hits for result in results] for results in asyncio.run(twice())] == [[(HIT,)]] * 2
    assert told == [episode] * 4, "each asked twice"
    assert ["waiting" in sentence for sentence in said] == [True, False], "one outage for all episodes"


def test_an_engine_that_does_not_ask_for_the_episode_is_left_as_it_is() -> None:
    engine = Engine()
    retriever = RetryingRetriever(engine, limit=600.0, notify=print)
    episode = EpisodeContext(question="Where?")
    assert bind(engine, episode) is engine
    assert bind(retriever, episode) is retriever
