"""The web chain (web -> pages -> summary) with 64 episodes in flight, slow pages and failing requests.

    python benchmarks/web_chain.py

Search endpoint, pages and summaries come from `tests/retrieval/local_web.py` in a process of its own; the generator is
scripted and takes no time; loop, retries and chain are the real ones. Every search finds pages that were not fetched
before. A page takes --page-ms, and --failures of all requests fail: half with status 503, half as a connection that
ends in the middle of the response.

Every run asserts that nothing is lost: each episode ends with its answer and has all its searches, each with as many
passages as were requested; each passage is the summary of its page, or of its snippet where its page failed at every
try, which the spans count.

The bar is the throughput that the latencies allow: episodes in flight / (mean seconds of a search alone, without
failures, x (1 + retries)); retries are the repeated requests per request. Throughput is measured from the moment at
which all of them are in flight to the start of the last episode: what follows depends on the length of the run alone.
The first episodes start within --spread seconds, since generation takes each of them another time; with 0 all of them
search, fetch and summarize at the same moments. Prints Markdown tables.
"""

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from r1searcher.corpora.readers import read_passages
from r1searcher.episodes.loop import EpisodeLimits, EpisodeRequest, run_episode
from r1searcher.episodes.protocols.r1_searcher import R1_SEARCHER
from r1searcher.episodes.trajectory import StopReason, Trajectory
from r1searcher.retrieval.base import Retriever, SearchResult
from r1searcher.retrieval.links.retry import RetryingRetriever
from r1searcher.retrieval.registry import settings_of_table
from tests.episodes.many import Script, ScriptedTurns, Words
from tests.processes import cpu_seconds
from tests.retrieval.local_web import local_web
from tests.shared_data import DATA

SELF = (sys.executable, __file__)
SEARCHES, TOP_K, PASSAGES = 4, 3, 240
LIMITS = EpisodeLimits(max_searches=SEARCHES, max_context=1_000_000, top_k=TOP_K)
_WITHOUT_PAGE = re.compile(r"(\d+) without a page")


@dataclass(frozen=True, slots=True)
class Round:
    """Times in seconds, CPU seconds of this process. `rate`: searches per second while all are in flight."""

    searches: int
    rate: float
    cpu: float
    latencies: list[float]
    without_page: int
    requests: int
    failed: int

    @property
    def mean(self) -> float:
        return statistics.mean(self.latencies)


@contextmanager
def served(options: argparse.Namespace, failures: float) -> Iterator[tuple[str, int]]:
    """The address of the local web and the id of its process."""
    values = json.dumps(
        {
            "failures": failures,
            "page_seconds": options.page_ms / 1000,
            "search_seconds": options.search_ms / 1000,
            "summary_seconds": options.summary_ms / 1000,
            "distinct": True,
        }
    )
    with subprocess.Popen([*SELF, "--serve", values], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as web:
        assert web.stdout
        assert web.stdin
        yield web.stdout.readline().strip(), web.pid
        web.stdin.close()


def serve(values: str) -> None:
    with local_web(passages(), **json.loads(values)) as (_, address):
        print(address, flush=True)
        sys.stdin.read()


def passages() -> list[Any]:
    return list(read_passages(DATA / "retrieval/passages.jsonl"))[:PASSAGES]


class Timed(RetryingRetriever):
    """With the time at which each search ended."""

    def __init__(self, retriever: Retriever) -> None:
        super().__init__(retriever, 60.0, lambda line: None)
        self.ended: list[float] = []

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        results = await super().search(queries, top_k)
        self.ended.append(time.perf_counter())
        return results


def table_of(address: str) -> dict[str, Any]:
    web = {"kind": "web", "url": "web:serper", "address": f"{address}/search"}
    pages = {"kind": "pages", "of": web, "allow": [address.removeprefix("http://")]}
    return {"kind": "summary", "server": f"{address}/v1", "model": "m", "of": pages}


async def run(address: str, episodes: int, in_flight: int, spread: float = 0.0) -> Round:
    titles = [one.title for one in passages()]
    scripts = [
        Script(
            tuple(f"{titles[(n * SEARCHES + k) % len(titles)]} {n}" for k in range(SEARCHES)), (0.0,) * (SEARCHES + 1)
        )
        for n in range(episodes)
    ]
    table = table_of(address)
    free, tokenizer = asyncio.Semaphore(in_flight), Words()
    async with aclosing(settings_of_table(table.pop("kind"), table).open()) as chain:
        retriever, begun = Timed(chain), [0.0] * episodes

        async def episode(number: int) -> Trajectory:
            request = EpisodeRequest(
                question=f"Number {number}?", prompt="?", protocol=R1_SEARCHER, limits=LIMITS, id=str(number)
            )
            async with free:
                await asyncio.sleep(spread * number / in_flight if number < in_flight else 0.0)
                begun[number] = time.perf_counter()
                return await run_episode(request, ScriptedTurns(scripts[number], tokenizer), retriever, tokenizer)

        before = time.process_time()
        trajectories = await asyncio.gather(*map(episode, range(episodes)))
        cpu = time.process_time() - before
    first, last = max(begun[:in_flight]), max(begun)
    counts = json.loads(urllib.request.urlopen(f"{address}/counts").read())
    return Round(
        searches=episodes * SEARCHES,
        rate=sum(first <= ended <= last for ended in retriever.ended) / (last - first),
        cpu=cpu,
        latencies=[search.seconds for one in trajectories for search in one.searches],
        without_page=require_complete(scripts, trajectories),
        requests=sum(counts["requests"].values()),
        failed=sum(counts["failed"].values()),
    )


def require_complete(scripts: Sequence[Script], trajectories: Sequence[Trajectory]) -> int:
    """Asserts that nothing is lost. The number of passages whose page could not be had."""
    missing = 0
    for script, trajectory in zip(scripts, trajectories, strict=True):
        assert trajectory.stop is StopReason.ANSWERED
        assert tuple(search.query for search in trajectory.searches) == script.queries
        for search in trajectory.searches:
            helpful = sum(int(n) for span in search.spans for n in re.findall(r"summary \((\d+) of no help", span.link))
            assert len(search.hits) + helpful == TOP_K
            assert search.hits
            assert all("(summary " in hit.passage.text for hit in search.hits)
            missing += sum(int(n) for span in search.spans for n in _WITHOUT_PAGE.findall(span.link))
    return missing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=512)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--page-ms", type=float, default=300.0)
    parser.add_argument("--search-ms", type=float, default=200.0)
    parser.add_argument("--summary-ms", type=float, default=1000.0)
    parser.add_argument("--failures", type=float, default=0.01)
    parser.add_argument("--spread", type=float, default=1.5)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["SERPER_API_KEY"] = "none"
    if options.serve:
        serve(options.serve)
        return
    with served(options, 0.0) as (address, _):
        alone = asyncio.run(run(address, 2, 1))
    with served(options, options.failures) as (address, server):
        started = cpu_seconds(server)
        busy = asyncio.run(run(address, options.episodes, options.in_flight, options.spread))
        of_server = cpu_seconds(server) - started
    retries = busy.failed / (busy.requests - busy.failed)
    possible = options.in_flight / (alone.mean * (1 + retries))
    print(
        f"\n{options.episodes} episodes of {SEARCHES} searches with {TOP_K} passages, {options.in_flight} in flight; "
        f"started within {options.spread:g} s; search {options.search_ms:g} ms, page {options.page_ms:g} ms, "
        f"summary {options.summary_ms:g} ms; "
        f"load average {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores\n"
    )
    print(
        "| searches | requests | failed | lost | without a page | alone s | in flight s | p95 s | searches/s ", end=""
    )
    print("| possible | ratio | client CPU ms | server CPU ms |\n" + "|---" * 13 + "|")
    print(
        f"| {busy.searches:,} | {busy.requests:,} | {busy.failed} | 0 | {busy.without_page} | {alone.mean:.2f} "
        f"| {busy.mean:.2f} | {statistics.quantiles(busy.latencies, n=20)[-1]:.2f} | {busy.rate:.1f} "
        f"| {possible:.1f} | {busy.rate / possible:.0%} | {1000 * busy.cpu / busy.searches:.0f} "
        f"| {1000 * of_server / busy.searches:.0f} |"
    )


if __name__ == "__main__":
    main()
