"""One piece of work of r1searcher, timed in a process of its own. `benchmarks/paired.py` runs it for each of two trees.

    PYTHONPATH=TREE python -P benchmarks/workloads.py build|query|score|episodes INPUTS FOLDER

INPUTS has `corpus.jsonl`, `queries.txt` and `predictions.jsonl`; FOLDER is this tree's own, kept between runs. Prints
`{"wall": seconds, "cpu": seconds}` of the work alone: imports, opening and preparing are not measured.
"""

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

EPISODES = 1000
QUERY_ROUNDS = 40


def build(inputs: Path, folder: Path) -> Callable[[], object]:
    """The embedded index of the corpus."""
    from r1searcher.corpora.readers import Corpus
    from r1searcher.retrieval.indexing.bm25 import build

    index = folder / "index"
    shutil.rmtree(index, ignore_errors=True)
    return lambda: build(Corpus(inputs / "corpus.jsonl"), index)


def query(inputs: Path, folder: Path) -> Callable[[], object]:
    """Queries against the index that `build` left, each answered alone."""
    from r1searcher.retrieval.engines.bm25 import EmbeddedIndex

    index = EmbeddedIndex(folder / "index")
    queries = (inputs / "queries.txt").read_text("utf-8").splitlines()
    index.search_one(queries[0], 3)
    return lambda: [index.search_one(one, 3) for _ in range(QUERY_ROUNDS) for one in queries]


def score(inputs: Path, folder: Path) -> Callable[[], object]:
    """A file of recorded trajectories as `r1s score` reads, scores and reports it, in one process."""
    from r1searcher.evaluation.scoring import score_file
    from r1searcher.report.scoring import summarize

    return lambda: summarize(score_file(inputs / "predictions.jsonl"))


def episodes(inputs: Path, folder: Path) -> Callable[[], object]:
    """Episodes through the executor that OpenRLHF calls, one after the other. Sampling is scripted."""
    from transformers import AutoTokenizer

    from r1searcher.config.settings import load
    from r1searcher.runs.folder import RunFolder
    from r1searcher.stages.prepare import prepare_stage
    from tests.engine.toy import make_world

    run = RunFolder(folder / "world" / "runs" / "stage1")
    if not run.manifest.exists():
        world = make_world(folder / "world")
        prepare_stage("stage1", load("stage1", world.settings), run)
    os.environ["R1S_RUN"] = str(run.path)
    from r1searcher.engine.openrlhf.executor import AgentExecutor

    tokenizer = AutoTokenizer.from_pretrained(folder / "world" / "model")
    rows = [json.loads(line) for line in run.questions.read_text("utf-8").splitlines()]
    executor = AgentExecutor()

    async def execute() -> None:
        for number in range(EPISODES):
            row = rows[number % len(rows)]
            town = row["input"].removeprefix("Where is ").partition("?")[0]
            engine = Scripted(
                tokenizer, [f"<|begin_of_query|>{town}<|end_of_query|>", f"</think><answer>{town}</answer>"]
            )
            await executor.execute(
                prompt=row["input"],
                label=row["label"],
                sampling_params=SimpleNamespace(n=1),
                max_length=128,
                hf_tokenizer=tokenizer,
                llm_engine=engine,
            )

    return lambda: asyncio.run(execute())


class Scripted:
    """vLLM's engine for one episode, whose turns are given."""

    def __init__(self, tokenizer: Any, turns: list[str]) -> None:
        self._turns = [(tokenizer(turn, add_special_tokens=False)["input_ids"], turn) for turn in turns]

    async def generate(self, token_ids: list[int], sampling: Any) -> Any:
        ids, text = self._turns.pop(0)
        stop = next(stop for stop in sampling.stop if text.endswith(stop))
        logprobs = [{token: SimpleNamespace(logprob=-1.0)} for token in ids]
        turn = SimpleNamespace(token_ids=ids, finish_reason="stop", stop_reason=stop, logprobs=logprobs)
        return SimpleNamespace(outputs=[turn])


def cpu_seconds() -> float:
    """Of this process, its threads and its ended children."""
    return sum(os.times()[:4])


def main(name: str, inputs: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    work = {"build": build, "query": query, "score": score, "episodes": episodes}[name](inputs, folder)
    wall, cpu = time.perf_counter(), cpu_seconds()
    work()
    print(json.dumps({"wall": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
