"""Waiting out an outage: never an empty result, and an end to the waiting."""

import asyncio
from collections.abc import Sequence

import pytest

from r1searcher.corpora.passage import Passage
from r1searcher.errors import RetrieverError, RunStopped
from r1searcher.retrieval.base import Health, Hit
from r1searcher.retrieval.retry import RetryingRetriever

HIT = Hit(Passage("1", "T", "x"), 1.0)


class DownFor:
    """Fails so many times, then answers."""

    def __init__(self, failures: int) -> None:
        self.failures = failures

    async def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        if self.failures:
            self.failures -= 1
            raise RetrieverError("connection refused", transient=True)
        return [[HIT] for _ in queries]

    async def health(self) -> Health:
        return Health("down for", 1, "")

    async def aclose(self) -> None: ...


def test_an_outage_pauses_and_then_gives_the_real_result() -> None:
    said: list[str] = []
    patient = RetryingRetriever(DownFor(2), limit=60.0, say=said.append)
    assert asyncio.run(patient.search(["q"], 1)) == [[HIT]]
    assert "waiting for the search engine" in said[0]
    assert "connection refused" in said[0]
    assert "is back" in said[-1]


def test_past_the_limit_the_run_stops_with_the_reason() -> None:
    patient = RetryingRetriever(DownFor(1_000), limit=0.2, say=lambda _: None)
    with pytest.raises(RunStopped, match="connection refused"):
        asyncio.run(patient.search(["q"], 1))


def test_many_waiting_episodes_share_one_heartbeat() -> None:
    said: list[str] = []
    patient = RetryingRetriever(DownFor(64), limit=60.0, say=said.append)

    async def everyone() -> None:
        await asyncio.gather(*(patient.search(["q"], 1) for _ in range(64)))

    asyncio.run(everyone())
    assert sum("waiting" in sentence for sentence in said) == 1
