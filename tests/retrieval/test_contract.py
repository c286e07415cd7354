"""The contract of retrievers, kept by every engine and wrapper, and broken in each way that it names."""

import asyncio
import math
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from r1searcher.corpora.passage import Passage
from r1searcher.errors import RetrieverError
from r1searcher.retrieval import open_retriever
from r1searcher.retrieval.base import EpisodeContext, Health, Hit, Retriever, SearchResult, Span
from r1searcher.retrieval.contract import check_outage, check_retriever
from r1searcher.retrieval.indexing.bm25 import build
from r1searcher.retrieval.indexing.elasticsearch import load
from r1searcher.retrieval.links.base import Link
from r1searcher.retrieval.links.retry import RetryingRetriever
from tests.retrieval.nodes import Server

PASSAGES = [Passage(str(n), f"Town {n}", f"Town {n} lies on a river.") for n in range(20)]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("contract") / "ix"
    build(PASSAGES, path)
    return path


def test_the_embedded_index_keeps_it(index: Path) -> None:
    asyncio.run(check_retriever(open_retriever(str(index)), "town river"))


@pytest.mark.parametrize("protocol", ["retrieve", "queries"])
def test_a_server_keeps_it(address: str, protocol: str) -> None:
    asyncio.run(check_retriever(open_retriever(f"{address}/{protocol}"), "town river"))


@pytest.mark.elasticsearch
def test_elasticsearch_keeps_it(node: Server) -> None:
    load(PASSAGES, node.url("contract"))
    asyncio.run(check_retriever(open_retriever(node.url("contract")), "town river"))


@pytest.mark.parametrize("wrapped", [Link, lambda inner: RetryingRetriever(inner, 600.0, print)])
def test_wrappers_keep_it(index: Path, wrapped: Callable[[Retriever], Retriever]) -> None:
    asyncio.run(check_retriever(wrapped(open_retriever(str(index))), "town river"))
    asyncio.run(check_retriever(wrapped(Good()), "town river"))


@pytest.mark.parametrize(
    "form",
    [
        "http://127.0.0.1:{}/retrieve",
        "http://127.0.0.1:{}/queries",
        "es://127.0.0.1:{}/x",
        "es://127.0.0.1:{}/x?fields=title",
        "opensearch://127.0.0.1:{}/x",
    ],
)
def test_an_engine_that_is_gone_is_never_an_empty_result(form: str) -> None:
    if form.startswith("opensearch"):
        pytest.importorskip("opensearchpy", reason="needs the extra [opensearch]")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    asyncio.run(check_outage(open_retriever(form.format(port))))
    asyncio.run(check_outage(RetryingRetriever(open_retriever(form.format(port)), 0.1, lambda _: None)))


def test_an_index_that_was_damaged_is_never_an_empty_result(tmp_path: Path) -> None:
    build(PASSAGES, tmp_path / "ix")
    retriever = open_retriever(str(tmp_path / "ix"))
    for file in (tmp_path / "ix" / "tantivy").glob("*.idx"):
        file.write_bytes(b"")
    asyncio.run(check_outage(retriever))


class Good:
    """Finds the same three passages for every query, in an episode only."""

    def __init__(self, **changed: Any) -> None:
        self.changed = changed

    def for_episode(self, episode: EpisodeContext) -> Retriever:
        return _Bound(self, episode)

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        raise RetrieverError("there is no episode")

    async def health(self) -> Health:
        return self.changed.get("health", Health("good"))

    async def aclose(self) -> None: ...


class _Bound(Link):
    def __init__(self, good: Good, episode: EpisodeContext) -> None:
        super().__init__(good)
        self.good, self.episode = good, episode

    def for_episode(self, episode: EpisodeContext) -> "_Bound":
        return _Bound(self.good, episode)

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        assert self.episode.question
        changed = self.good.changed
        hits = changed.get("hits", tuple(Hit(passage, 1.0 / (n + 1)) for n, passage in enumerate(PASSAGES[:3])))
        some = hits if changed.get("too_many") else hits[:top_k]
        result = SearchResult(some, spans=(Span("good", changed.get("seconds", 0.1)),))
        results: list[Any] = [result for _ in queries]
        return changed.get("results", lambda results: results)(results)


HIT = Hit(PASSAGES[0], 1.0)
BROKEN: dict[str, dict[str, Any]] = {
    "health has a name": {"health": Health("")},
    "how many passages": {"health": Health("x", -1)},
    "one result per query": {"results": lambda results: results[:1]},
    "no queries have no results": {"results": lambda results: results or [SearchResult()]},
    "a result is a SearchResult": {"results": lambda results: [list(result.hits) for result in results]},
    "a tuple": {"hits": [HIT]},
    "at most 3 hits": {"too_many": True, "hits": (HIT,) * 4},
    "has hits": {"hits": ()},
    "strings": {"hits": (Hit(Passage("1", "T", 7), 1.0),)},  # type: ignore[arg-type]
    "scores are finite": {"hits": (Hit(PASSAGES[0], math.nan),)},
    "spans cost nothing or more": {"seconds": -1.0},
    "the best hit comes first": {"hits": (Hit(PASSAGES[0], 1.0), Hit(PASSAGES[1], 2.0))},
    "do not disturb each other": {
        "results": lambda results: [*results[:-1], SearchResult()] if results[1:] else results
    },
}


@pytest.mark.parametrize("rule", BROKEN)
def test_each_rule_is_checked(rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        asyncio.run(check_retriever(Good(**BROKEN[rule]), "town"))


class _Lookup(Good):
    """`Good` with a lookup that always finds the same."""

    def __init__(self, found: Passage | None, **changed: Any) -> None:
        super().__init__(**changed)
        self.found = found

    async def passage(self, id_: str) -> Passage | None:
        return self.found


def test_the_rules_of_a_lookup_are_checked() -> None:
    for found in (None, PASSAGES[19]):
        with pytest.raises(AssertionError, match="can be looked up by its id"):
            asyncio.run(check_retriever(_Lookup(found), "town"))
    with pytest.raises(AssertionError, match="by an id that no passage has"):
        asyncio.run(check_retriever(_Lookup(HIT.passage, hits=(HIT,)), "town"))


def test_a_retriever_that_takes_an_outage_for_no_match_is_found() -> None:
    with pytest.raises(AssertionError, match="never an empty result"):
        asyncio.run(check_outage(Good(hits=())))
    with pytest.raises(AssertionError, match="health fails"):
        asyncio.run(check_outage(_Failing()))


class _Failing(Good):
    def for_episode(self, episode: EpisodeContext) -> Retriever:
        return self


def test_a_result_is_hits_or_an_error() -> None:
    with pytest.raises(ValueError, match="not both"):
        SearchResult((HIT,), RetrieverError("x"))
    with pytest.raises(RetrieverError, match="x"):
        SearchResult(error=RetrieverError("x")).require_hits()
