"""1,024 episodes at once, with up to eight searches each: nothing is lost, also while the server is restarted."""

import asyncio
import random
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack, aclosing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from r1searcher.corpora.readers import read_passages
from r1searcher.retrieval import open_retriever
from r1searcher.retrieval.base import Retriever, SearchResult
from r1searcher.retrieval.indexing.base import IndexOptions
from r1searcher.retrieval.indexing.elasticsearch import load
from r1searcher.retrieval.links.base import Link
from tests.episodes.many import MOST_SEARCHES, TOP_K, Script, require_complete, run_scripts
from tests.processes import memory_mb, ready
from tests.retrieval.conftest import Hits
from tests.retrieval.nodes import Server
from tests.retrieval.serving import started

EPISODES = 1024
NOWHERE = "qwertzuiop"

OPEN_AND_SEARCH = """
import sys
from pathlib import Path
from r1searcher.retrieval.engines.bm25 import EmbeddedIndex

index = EmbeddedIndex(Path(sys.argv[1]))
for query in sys.argv[2:]:
    index.search_one(query, 5)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def expected(lucene_hits: Hits) -> dict[str, list[str]]:
    """Lucene's passages for each query, and none for one that matches nothing."""
    return {query: [id_ for id_, _ in hits[:TOP_K]] for query, hits in lucene_hits.items()} | {NOWHERE: []}


@pytest.fixture(scope="module")
def scripts(expected: dict[str, list[str]]) -> list[Script]:
    draw, queries = random.Random(7), sorted(expected)
    numbers = [1 + number % MOST_SEARCHES for number in range(EPISODES)]
    return [Script(tuple(draw.choices(queries, k=number)), (0.0,) * (number + 1)) for number in numbers]


class Watched(Link):
    """Counts searches: those that ended, and the most that were waiting at once."""

    def __init__(self, retriever: Retriever, many: int = 0) -> None:
        super().__init__(retriever)
        self.ended = self.waiting = self.most_waiting = 0
        self.many, self.many_ended = many, asyncio.Event()

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        try:
            found = await super().search(queries, top_k)
        finally:
            self.waiting -= 1
        self.ended += 1
        if self.ended == self.many:
            self.many_ended.set()
        return found


async def test_the_embedded_index_answers_every_search(
    wikipedia_index: Path, scripts: list[Script], expected: dict[str, list[str]]
) -> None:
    async with aclosing(Watched(open_retriever(str(wikipedia_index)))) as retriever:
        trajectories = await run_scripts(scripts, retriever)
    require_complete(scripts, trajectories, expected)
    assert retriever.most_waiting == EPISODES
    assert retriever.ended == sum(len(script.queries) for script in scripts)


async def test_a_server_that_is_restarted_in_the_middle_answers_every_search(
    wikipedia_index: Path, scripts: list[Script], expected: dict[str, list[str]]
) -> None:
    said: list[str] = []
    many = sum(len(script.queries) for script in scripts) // 3
    index, options = str(wikipedia_index), ("--workers", "1")
    with ExitStack() as servers:
        process, address = servers.enter_context(started(index, *options))
        again = started(index, *options, "--port", str(urlsplit(address).port))

        async def restart() -> None:
            await retriever.many_ended.wait()
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(process.wait, 60)
            await asyncio.to_thread(servers.enter_context, again)

        async with aclosing(Watched(open_retriever(f"{address}/retrieve"), many)) as retriever:
            trajectories, _ = await asyncio.gather(run_scripts(scripts, retriever, said.append), restart())
    require_complete(scripts, trajectories, expected)
    assert retriever.most_waiting == EPISODES
    assert "waiting for the search engine" in said[0]
    assert "the search engine is back" in said[-1]


@pytest.mark.elasticsearch
async def test_elasticsearch_answers_every_search(
    node: Server, wikipedia: Path, scripts: list[Script], expected: dict[str, list[str]]
) -> None:
    url = node.url("many-episodes")
    load(read_passages(wikipedia), url, IndexOptions())
    async with aclosing(Watched(open_retriever(url))) as retriever:
        trajectories = await run_scripts(scripts, retriever)
    require_complete(scripts, trajectories, expected)
    assert retriever.most_waiting == EPISODES


def test_processes_share_the_memory_of_an_index(wikipedia_index: Path, expected: dict[str, list[str]]) -> None:
    command = [sys.executable, "-c", OPEN_AND_SEARCH, str(wikipedia_index), *expected]
    with ready(command, 3) as processes:
        memory = [memory_mb(process, str(wikipedia_index)) for process in processes]
    size = sum(file.stat().st_size for file in (wikipedia_index / "tantivy").iterdir()) / 2**20
    for found in memory:
        assert found["Rss"] > size / 2, "the index is mapped and was read"
        assert found["Private"] == 0
        assert found["Shared"] == found["Rss"]
    assert sum(found["Pss"] for found in memory) < 1.1 * size, "one copy for all of them"
