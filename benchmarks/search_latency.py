"""Continuous batching: the same episodes with a search engine that responds at once and with one that takes 200 ms.

    python benchmarks/search_latency.py MODEL QUESTIONS.jsonl --retriever INDEX [--set section.key=value ...]

MODEL is a run or a Hugging Face folder, as for `r1s evaluate`; one vLLM engine runs all episodes with greedy decoding,
64 at a time. Both kinds alternate after a warm-up round; the table shows the medians and their ratio.
"""

import argparse
import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from r1searcher.config.overrides import from_assignments
from r1searcher.evaluation.rollouts import request_maker, roll_out, rollout_requests
from r1searcher.evaluation.target import ModelRequest, find_target, open_engine
from r1searcher.questions.read import read_question_file
from r1searcher.retrieval import open_retriever
from r1searcher.retrieval.base import Retriever, SearchResult
from r1searcher.retrieval.links.base import Link

LATENCY = 0.2


class Slow(Link):
    """The same engine with added latency in seconds. Searches wait concurrently."""

    def __init__(self, retriever: Retriever, seconds: float) -> None:
        super().__init__(retriever)
        self._seconds = seconds

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        if self._seconds:
            await asyncio.sleep(self._seconds)
        return await super().search(queries, top_k)


async def measure(arguments: argparse.Namespace) -> None:
    overrides = {"retrieval.url": arguments.retriever, **from_assignments(arguments.set)}
    request = ModelRequest(model=arguments.model, overrides=overrides, concurrency=64)
    target = find_target(arguments.model, overrides)
    questions = read_question_file(arguments.questions, limit=arguments.episodes, strict=True).questions
    tasks = rollout_requests(questions)
    seconds: dict[float, list[float]] = {0.0: [], LATENCY: []}
    searches = []
    async with AsyncExitStack() as stack:
        retriever = open_retriever(target.settings.retrieval.engine)
        stack.push_async_callback(retriever.aclose)
        engine = await open_engine(stack, request, target)
        for number, latency in enumerate([0.0, *(0.0, LATENCY) * arguments.rounds]):
            started = time.perf_counter()
            rollouts = roll_out(
                tasks,
                engine,
                Slow(retriever, latency),
                request_maker(target.settings, engine),
                64,
            )
            played = [trajectory async for _, trajectory, _ in rollouts]
            if number:
                seconds[latency].append(time.perf_counter() - started)
                searches.append(sum(len(trajectory.searches) for trajectory in played))
    table = Table(
        title=f"{len(tasks)} episodes, {searches[0] / len(tasks):.2f} searches each, {arguments.rounds} rounds"
    )
    for heading in ("search engine", "seconds", "ratio"):
        table.add_column(heading, justify="right")
    without, with_ = median(seconds[0.0]), median(seconds[LATENCY])
    table.add_row("answers at once", f"{without:.2f}", "1")
    table.add_row(f"{LATENCY * 1000:.0f} ms later", f"{with_:.2f}", f"{with_ / without:.2f}")
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("questions", type=Path)
    parser.add_argument("--retriever", required=True)
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[])
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
