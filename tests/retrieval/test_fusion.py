"""Fusion: scores from the formulas' own terms, errors, and the contract of retrievers."""

import asyncio
from pathlib import Path

import pytest

from r1searcher.errors import RetrieverError
from r1searcher.retrieval import open_retriever
from r1searcher.retrieval.base import Retriever, SearchResult, bind
from r1searcher.retrieval.contract import _EPISODE, check_outage, check_retriever
from r1searcher.retrieval.links.fusion import Fusion, Settings
from tests.retrieval.scripted import Bound, Scripted

FIRST = Scripted({"q": [("a", 9.0), ("b", 5.0), ("c", 1.0)]}, "first")
SECOND = Scripted({"q": [("c", 0.9), ("d", 0.8), ("a", 0.4)]}, "second")


def fused(*engines: Retriever, top_k: int = 10, **keys: object) -> SearchResult:
    settings = Settings.model_validate({"of": ["x"] * len(engines), **keys})
    [result] = asyncio.run(Fusion(engines, settings).search(["q"], top_k))
    return result


def scores(result: SearchResult) -> list[tuple[str, float]]:
    return [(hit.passage.id, round(hit.score, 6)) for hit in result.require_hits()]


def test_reciprocal_rank_fusion_is_the_sum_of_the_reciprocals() -> None:
    """a: 1/61 + 1/63, c: 1/63 + 1/61, b and d: 1/62. Equal scores keep the order in which they were found."""
    both = round(1 / 61 + 1 / 63, 6)
    assert scores(fused(FIRST, SECOND)) == [("a", both), ("c", both), ("b", 0.016129), ("d", 0.016129)]
    assert [id_ for id_, _ in scores(fused(FIRST, SECOND, top_k=2))] == ["a", "c"]
    assert scores(fused(FIRST, SECOND, k=0, weights=[1, 10]))[0] == ("c", round(10 / 1 + 1 / 3, 6))


def test_weighted_scores_are_scaled_per_query() -> None:
    """First: a 1, b .5, c 0. Second: c 1, d (.8 - .4) / (.9 - .4) = .8, a 0."""
    found = scores(fused(FIRST, SECOND, method="scores", weights=[0.25, 0.75]))
    assert found == [("c", 0.75), ("d", 0.6), ("a", 0.25), ("b", 0.125)]


def test_one_score_alone_counts_in_full() -> None:
    assert scores(fused(Scripted({"q": [("a", 3.0)]}), Scripted({}), method="scores")) == [("a", 1.0)]


def test_a_passage_that_a_ranking_has_twice_counts_once() -> None:
    twice = Scripted({"q": [("a", 3.0), ("a", 2.0), ("b", 1.0)]})
    assert scores(fused(twice, Scripted({}))) == [("a", round(1 / 61, 6)), ("b", round(1 / 63, 6))]


def test_the_error_of_one_part_is_that_of_the_query_and_of_no_other() -> None:
    broken = Scripted({"q": RetrieverError("down", transient=True), "r": [("e", 1.0)]})
    result, other = asyncio.run(Fusion([FIRST, broken], Settings(of=("x", "y"))).search(["q", "r"], 3))  # type: ignore[arg-type]
    assert str(result.error) == "down"
    assert [hit.passage.id for hit in other.require_hits()] == ["e"]


def test_an_engine_that_is_down_is_an_error() -> None:
    class Down(Scripted):
        async def search(self, queries: object, top_k: int) -> list[SearchResult]:
            raise RetrieverError("no connection", transient=True)

        async def health(self) -> None:  # type: ignore[override]
            raise RetrieverError("no connection", transient=True)

    asyncio.run(check_outage(Fusion([FIRST, Down({})], Settings(of=("x", "y")))))  # type: ignore[arg-type]


def test_health_has_the_parts_and_a_fingerprint_of_everything() -> None:
    def health(first: str, **keys: object) -> tuple[str, int | None, str]:
        parts = [Scripted({}, first), Scripted({}, "b")]
        settings = Settings.model_validate({"of": ["x", "y"], **keys})
        said = asyncio.run(Fusion(parts, settings).health())
        return said.name, said.passages, said.fingerprint

    assert health("a")[:2] == ("a + b -> rrf", 10)
    assert len({health("a"), health("a"), health("c"), health("a", k=1.0)}) == 3


def test_the_episode_reaches_the_parts() -> None:
    fusion = bind(Fusion([Bound({}), Scripted({})], Settings(of=("x", "y"))), _EPISODE)  # type: ignore[arg-type]
    [result] = asyncio.run(fusion.search(["q"], 1))
    assert [hit.passage.id for hit in result.hits] == ["Moy-1"]


@pytest.mark.parametrize("method", ["fusion", "fusion:0.5,0.5"])
def test_two_real_indexes_keep_the_contract(method: str, wikipedia_index: Path) -> None:
    asyncio.run(check_retriever(open_retriever(f"{wikipedia_index} + {wikipedia_index} -> {method}"), "Norway"))


def test_the_same_index_twice_ranks_as_once(wikipedia_index: Path) -> None:
    async def ids(url: str) -> list[str]:
        retriever = open_retriever(url)
        [result] = await retriever.search(["capital of Norway"], 5)
        await retriever.aclose()
        return [hit.passage.id for hit in result.require_hits()]

    once = asyncio.run(ids(str(wikipedia_index)))
    assert asyncio.run(ids(f"{wikipedia_index} + {wikipedia_index} -> fusion")) == once
