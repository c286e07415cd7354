"""Retrieval at the paper's scale: 1,024 episodes at once, each with up to eight searches, through the episode loop.

    python benchmarks/retrieval_scale.py --corpora c20k 200000 1000000 --elasticsearch http://127.0.0.1:9200

The generator is scripted; loop, retries, engines and servers are the real ones. Each corpus is searched by the embedded
index in the process of the episodes, by `r1s serve` over that index, and by a running Elasticsearch if one is named.
`c20k` is the real corpus in the folder of R1S_TEST_SHARED; a number N is a synthetic corpus of N passages (seed 7).

Every round asserts that each episode has all its searches, each with the passages that the embedded index finds for
that query alone. (Elasticsearch is compared with its own first answer: Lucene does not count passages without terms, of
which the synthetic corpora have a few, so its scores differ by 0.005 %, and the order of a few hits.) CPU milliseconds
per search are those of the processes minus those of the same episodes without an engine; a busy machine changes them
little, unlike wall time. Prints Markdown tables.
"""

import argparse
import asyncio
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from heapq import heapify, heappop, heapreplace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from corpus import SHARED, queries, write_corpus
from index import elasticsearch_figures

from r1searcher.episodes.trajectory import Trajectory
from r1searcher.retrieval import open_retriever
from r1searcher.retrieval.base import Health, Hit, SearchResult, hits_of
from r1searcher.retrieval.engines.bm25 import EmbeddedIndex
from tests.episodes.many import MOST_SEARCHES, TOP_K, Script, require_complete, run_scripts
from tests.processes import cpu_seconds, memory_mb, ready, tree
from tests.retrieval.serving import started, workers

SELF = (sys.executable, __file__)
EPISODES, PAPER_PASSAGES = 1024, 5_200_000
STEP_S, SHARE = 60, 0.05
"""A training step in seconds, and the part of it that searches may add."""
GENERATION_S = 30.0
"""How much of the step is generation; the rest is training."""
EMBEDDED, SERVED, ELASTICSEARCH = "embedded", "served", "Elasticsearch"


def write_scripts(fewest: int, generation: float, seed: int = 7) -> list[Script]:
    """Half of the queries are questions, half are keywords as models wrote them.

    Turns differ in length by a factor of up to 3; without searches, the longest episode takes `generation` seconds.
    """
    draw = random.Random(seed)
    drawn = []
    for _ in range(EPISODES):
        searches = draw.randint(fewest, MOST_SEARCHES)
        drawn.append((tuple(draw.choices(asked(), k=searches)), [draw.uniform(0.5, 1.5) for _ in range(searches + 1)]))
    scale = generation / max(sum(seconds) for _, seconds in drawn)
    return [Script(found, tuple(scale * second for second in seconds)) for found, seconds in drawn]


def asked() -> list[str]:
    return queries("questions", 500) + queries("queries", 500)


class Known:
    """No engine: results that are known already."""

    def __init__(self, results: Mapping[str, list[Hit]]) -> None:
        self._results = results

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        return [SearchResult(tuple(self._results[query])) for query in queries]

    async def health(self) -> Health:
        return Health("known")

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """All episodes once. Times in seconds; `client` and `server` are CPU time, the percentiles those of one search."""

    searches: int
    empty: int
    wall: float
    client: float
    server: float
    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class Server:
    """What answers outside the process of the episodes: a process of this machine, Elasticsearch, or nothing."""

    pid: int = 0
    elasticsearch: str = ""

    def cpu(self) -> float:
        """CPU seconds so far."""
        if self.elasticsearch:
            return elasticsearch_figures(self.elasticsearch)["cpu_s"]
        return sum(map(cpu_seconds, tree(self.pid))) if self.pid else 0.0


async def run_round(url: str, index: Path, scripts: Sequence[Script], server: Server) -> Round:
    """In this process, after every query was searched once. Without a URL, no engine is asked."""
    alone = EmbeddedIndex(index)
    known = {query: alone.search_one(query, TOP_K) for query in asked()}
    async with aclosing(open_retriever(url) if url else Known(known)) as retriever:
        first = dict(zip(asked(), await hits_of(retriever, asked(), TOP_K), strict=True))
        before = time.perf_counter(), time.process_time(), server.cpu()
        trajectories = await run_scripts(scripts, retriever)
        after = time.perf_counter(), time.process_time(), server.cpu()
    expected = first if server.elasticsearch else known
    require_complete(scripts, trajectories, {query: [hit.passage.id for hit in expected[query]] for query in expected})
    return _round(trajectories, *(end - start for start, end in zip(before, after, strict=True)))


def _round(trajectories: Sequence[Trajectory], wall: float, client: float, server: float) -> Round:
    searches = [search for trajectory in trajectories for search in trajectory.searches]
    _, *percentiles = statistics.quantiles((search.seconds for search in searches), n=20, method="inclusive")
    return Round(
        searches=len(searches),
        empty=sum(not search.hits for search in searches),
        wall=wall,
        client=client,
        server=server,
        p50=percentiles[8],
        p95=percentiles[-1],
    )


def round_of(url: str, index: Path, server: Server, load: tuple[int, float]) -> Round:
    """A round in a process of its own; `load` are the arguments of `write_scripts`."""
    arguments = json.dumps([url, str(index), [server.pid, server.elasticsearch], load])
    done = subprocess.run([*SELF, "--step", "run", arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return Round(**json.loads(done.stdout.splitlines()[-1]))


def step_run(arguments: str) -> None:
    url, index, server, load = json.loads(arguments)
    print(json.dumps(asdict(asyncio.run(run_round(url, Path(index), write_scripts(*load), Server(*server))))))


def step_open(index: str) -> None:
    """Opens the index, searches, and waits."""
    asyncio.run(hits_of(EmbeddedIndex(Path(index)), asked(), TOP_K))
    print("ready", flush=True)
    sys.stdin.read()


def step_seconds(scripts: Sequence[Script], cpu: float, cores: int) -> float:
    """Seconds until the last episode ends, if each search takes `cpu` seconds of one core and they are run in the order
    in which they arrive. The cores do nothing else."""
    free = [0.0] * cores
    turns = [(script.seconds[0], number, 0) for number, script in enumerate(scripts)]
    heapify(turns)
    end = 0.0
    while turns:
        end, number, turn = turns[0]
        if turn == len(scripts[number].queries):
            heappop(turns)
            continue
        found = max(end, free[0]) + cpu
        heapreplace(free, found)
        heapreplace(turns, (found + scripts[number].seconds[turn + 1], number, turn + 1))
    return end


def cores_needed(cpu: float, overlapped: bool) -> int:
    """The fewest cores with which searches of `cpu` seconds add at most `SHARE` of a step, if every episode makes all
    its searches: while other episodes generate, or all at a time when none does."""
    allowed = SHARE * STEP_S
    if not overlapped:
        return math.ceil(EPISODES * MOST_SEARCHES * cpu / allowed)
    scripts = write_scripts(MOST_SEARCHES, GENERATION_S)
    return next(n for n in range(1, 10_000) if step_seconds(scripts, cpu, n) - GENERATION_S <= allowed)


BURST, STEP = (1, 0.0), (MOST_SEARCHES, GENERATION_S)
"""Arguments of `write_scripts`: turns that take no time; turns that take theirs, with all searches in each episode."""


@dataclass(frozen=True, slots=True)
class Figures:
    """An engine on a corpus, with each load; CPU is in seconds per search, without that of the episodes themselves."""

    burst: Round
    step: Round
    burst_alone: Round
    step_alone: Round

    @property
    def searches(self) -> int:
        return self.burst.searches + self.step.searches

    @property
    def client(self) -> float:
        return (self.burst.client - self.burst_alone.client) / self.burst.searches

    @property
    def server(self) -> float:
        return self.burst.server / self.burst.searches

    @property
    def cpu(self) -> float:
        return self.client + self.server

    @property
    def step_cpu(self) -> float:
        return (self.step.client - self.step_alone.client + self.step.server) / self.step.searches


def loads(url: str, index: Path, server: Server) -> tuple[Round, Round]:
    return round_of(url, index, server, BURST), round_of(url, index, server, STEP)


def prepare(name: str, work: Path, elasticsearch: str) -> tuple[Path, str]:
    """The index folder of a corpus and, with a server, the URL of its index there; both are kept for the next time."""
    corpus = SHARED / f"{name}.jsonl" if name == "c20k" else work / f"corpus-{name}.jsonl"
    if name != "c20k":
        write_corpus(corpus, int(name))
    index, url = work / f"r1searcher-{name}", f"es://{elasticsearch.partition('://')[2]}/scale-{name}"
    if not index.exists():
        r1s("index-corpus", str(corpus), "--to", str(index))
    if elasticsearch:
        from elasticsearch import Elasticsearch

        with Elasticsearch(elasticsearch) as client:
            if not client.indices.exists(index=f"scale-{name}"):
                r1s("index-corpus", str(corpus), "--to", url)
    return index, url


def r1s(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "r1searcher.cli", *arguments], check=True, stderr=subprocess.DEVNULL)


def measure(name: str, work: Path, elasticsearch: str) -> tuple[dict[str, Figures], list[str]]:
    """The figures of each engine on one corpus, and rows of the memory table."""
    index, url = prepare(name, work, elasticsearch)
    alone = loads("", index, Server())
    found = {EMBEDDED: Figures(*loads(str(index), index, Server()), *alone)}
    with started(str(index)) as (process, address):
        found[SERVED] = Figures(*loads(f"{address}/retrieve", index, Server(process.pid)), *alone)
        memory = [memory_row(f"{name}, `r1s serve`", workers(process.pid), index)]
    if elasticsearch:
        found[ELASTICSEARCH] = Figures(*loads(url, index, Server(0, elasticsearch)), *alone)
    for processes in (1, 4):
        with ready([*SELF, "--step", "open", str(index)], processes) as pids:
            memory.append(memory_row(f"{name}, embedded", pids, index))
    for engine, one in found.items():
        print(f"{name} {engine}: {one}", file=sys.stderr, flush=True)
    return found, memory


def memory_row(what: str, pids: Sequence[int], index: Path) -> str:
    whole = [memory_mb(pid) for pid in pids]
    mapped = [memory_mb(pid, str(index)) for pid in pids]
    cells = [f"{sum(one[kind] for one in whole) / len(pids):,.0f}" for kind in ("Rss", "Private")]
    cells += [f"{sum(one[kind] for one in mapped) / len(pids):,.1f}" for kind in ("Rss", "Private")]
    return f"| {what} | {len(pids)} | {' | '.join(cells)} | {sum(one['Pss'] for one in mapped):,.1f} |"


def print_table(results: Mapping[str, Mapping[str, Figures]]) -> None:
    print(
        f"\n{EPISODES:,} episodes at once; step: {MOST_SEARCHES} searches in each, {GENERATION_S:.0f} s of generation; "
        f"load average {os.getloadavg()[2]:.0f} on {os.cpu_count()} cores\n\n| corpus | engine | searches | lost "
        "| empty | client CPU ms | server CPU ms | searches/s | step: CPU ms | p50 ms | p95 ms | added s |\n"
        + "|---" * 12
        + "|"
    )
    for corpus, by_engine in results.items():
        for engine, one in by_engine.items():
            burst, step = one.burst, one.step
            print(
                f"| {corpus} | {engine} | {one.searches:,} | 0 | {burst.empty + step.empty} | {one.client * 1000:.2f} "
                f"| {one.server * 1000:.2f} | {burst.searches / burst.wall:,.0f} | {one.step_cpu * 1000:.2f} "
                f"| {step.p50 * 1000:,.0f} | {step.p95 * 1000:,.0f} | {step.wall - one.step_alone.wall:.1f} |"
            )


def print_cores(results: Mapping[str, Mapping[str, Figures]]) -> None:
    """Extrapolates CPU time to the paper's size from the two largest synthetic corpora: by a power of the size with the
    exponent between them, and by the line through them, which is more."""
    sizes = sorted(int(name) for name in results if name.isdecimal())[-2:]
    if len(sizes) < 2:
        return
    small, large = sizes
    print(
        f"\nCores for {EPISODES * MOST_SEARCHES:,} searches per step\n\n| engine | CPU ms at {small:,} | {large:,} "
        f"| exponent | extrapolated to {PAPER_PASSAGES:,} | cores, overlapped | cores, not overlapped |\n"
        + "|---" * 7
        + "|"
    )
    for engine in results[str(large)]:
        less, more = (results[str(size)][engine].cpu for size in sizes)
        exponent = math.log(more / less) / math.log(large / small)
        power = more * (PAPER_PASSAGES / large) ** exponent
        line = more + (more - less) / (large - small) * (PAPER_PASSAGES - large)
        cores = [
            f"{cores_needed(power, overlapped)} to {cores_needed(line, overlapped)}" for overlapped in (True, False)
        ]
        print(
            f"| {engine} | {less * 1000:.2f} | {more * 1000:.2f} | {exponent:.2f} "
            f"| {power * 1000:.1f} to {line * 1000:.1f} | {' | '.join(cores)} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", nargs="+", default=["c20k"])
    parser.add_argument("--elasticsearch", default="", help="A running server: http://127.0.0.1:9200.")
    parser.add_argument("--work", type=Path, default=Path("/tmp/r1s-bench"))
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        kind, argument = options.step
        {"run": step_run, "open": step_open}[kind](argument)
        return
    options.work.mkdir(parents=True, exist_ok=True)
    results, memory = {}, []
    for name in options.corpora:
        results[name], rows = measure(name, options.work, options.elasticsearch)
        memory += rows
    print_table(results)
    print_cores(results)
    head = (
        "| corpus, processes | number | resident | private | index pages | of them private | index pages of all (Pss) |"
    )
    print("\nMB per process\n", head, "|---" * 7 + "|", *memory, sep="\n")


if __name__ == "__main__":
    main()
