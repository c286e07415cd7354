"""Dense retrieval with a real encoder: recall compared with BM25, fusion, approximate search, precision, memory.

    export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
    python benchmarks/dense.py MODEL CORPUS --questions A.jsonl B.jsonl --work FOLDER [--parts recall fusion …]

MODEL is a Hugging Face folder (all-MiniLM-L6-v2, for example). Vectors are kept in FOLDER in parts of 1,024 texts, so
that an interrupted run continues: use another folder for another model or corpus. `--bfloat16` encodes in that
precision, which is faster on a CPU with AMX.

- recall: share of questions with a gold answer in the first k passages of BM25, of the encoder (compared with every
  passage), and of both with equal weights in reciprocal rank fusion;
- fusion: method and weight chosen for recall@5 on one half of each set, reported on the other half, and the reverse;
  paired 95 % interval of the difference to BM25;
- speed: passages and their sentences, one question at a time on one thread. Recall is that of the first 10 of brute
  force over float32, computed here; ratios are to the exact search of the float32 index in the same run;
- memory: `--scale` vectors, real ones with noise, built and searched in processes of their own. Peak RSS (VmHWM) counts
  the pages of mapped files; anonymous memory (RssAnon) does not.
"""

import argparse
import asyncio
import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from r1searcher.corpora.passage import Passage
from r1searcher.corpora.readers import read_passages
from r1searcher.evaluation.recall import CUTOFFS, first_rank, measurable
from r1searcher.questions.question import Question
from r1searcher.questions.read import read_question_file
from r1searcher.report.intervals import paired_difference
from r1searcher.retrieval.base import Health, Hit, SearchResult, hits_of
from r1searcher.retrieval.engines.bm25 import EmbeddedIndex
from r1searcher.retrieval.engines.dense import DenseIndex, Settings
from r1searcher.retrieval.indexing import bm25
from r1searcher.retrieval.indexing.base import DenseOptions
from r1searcher.retrieval.indexing.dense import VECTORS, _Build
from r1searcher.retrieval.links.fusion import Fusion
from r1searcher.retrieval.links.fusion import Settings as FusionSettings
from r1searcher.retrieval.neural.encoder import Encoder, settings_for
from r1searcher.retrieval.neural.text import text_of

Vectors = npt.NDArray[np.float32]
Ranking = Sequence[tuple[Hit, ...]]

DEPTH = 100
"""Passages of each ranking that are fused."""

PART = 1024
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
"""Weights of the encoder's ranking that are tried; BM25's is 1 less that."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--questions", type=Path, nargs="+", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", default=["recall", "fusion", "speed", "memory"])
    parser.add_argument("--scale", type=int, default=1_000_000)
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--child", choices=["build", "search"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if {os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")} != {"1"}:
        parser.error("export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 first: one thread is measured")
    bench = Bench(arguments)
    if arguments.child:
        print(json.dumps(bench.child(arguments.child)))
        return
    for part in arguments.parts:
        for table in {"recall": bench.recall, "fusion": bench.fusion, "speed": bench.speed, "memory": bench.memory}[
            part
        ]():
            Console(width=140).print(table)


class Known:
    """An encoder of passages whose vectors are already there, in order."""

    def __init__(self, blocks: Iterator[Vectors], dimensions: int, weights: str) -> None:
        self._blocks, self.dimensions, self.weights = blocks, dimensions, weights

    def passages(self, texts: Sequence[str]) -> Vectors:
        block = next(self._blocks)
        assert len(block) == len(texts)
        return block


class Fixed:
    """A retriever with known rankings: one per query, in order."""

    def __init__(self, ranking: Ranking) -> None:
        self._ranking = ranking

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        return [SearchResult(hits[:top_k]) for hits in self._ranking]

    async def health(self) -> Health:
        return Health("known rankings")

    async def aclose(self) -> None: ...


class Bench:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._work: Path = arguments.work
        self._work.mkdir(parents=True, exist_ok=True)
        self._settings = settings_for(arguments.model)
        self._encoder: Encoder | None = None
        self._passages = list(read_passages(arguments.corpus))
        self._sets: dict[str, list[Question]] = {
            path.stem: measurable(read_question_file(path, strict=True).questions) for path in arguments.questions
        }
        self._rankings: dict[str, tuple[Ranking, Ranking]] = {}

    @property
    def encoder(self) -> Encoder:
        self._encoder = self._encoder or Encoder(self._settings)
        return self._encoder

    def vectors(self, name: str, texts: Sequence[str], encode: Callable[[Sequence[str]], Vectors]) -> Vectors:
        """Shape (texts, dimensions), from the work folder as far as they are there."""
        import torch

        found = []
        for start in range(0, len(texts), PART):
            path = self._work / f"{name}-{start:06d}.npy"
            if not path.exists():
                inside = torch.autocast("cpu", torch.bfloat16) if self._arguments.bfloat16 else nullcontext()
                with inside:
                    rows = encode(texts[start : start + PART])
                np.save(path.with_suffix(".new.npy"), rows)
                path.with_suffix(".new.npy").replace(path)
                print(f"{name}: {start + len(rows):,} of {len(texts):,}", file=sys.stderr, flush=True)
            found.append(np.load(path, allow_pickle=False))
        return np.concatenate(found)

    def of_passages(self) -> Vectors:
        return self.vectors("passages", list(map(text_of, self._passages)), self.encoder.passages)

    def of_questions(self, name: str) -> Vectors:
        return self.vectors(f"asked-{name}", [question.text for question in self._sets[name]], self.encoder.queries)

    def rankings(self, name: str) -> tuple[Ranking, Ranking]:
        """The first `DEPTH` passages by BM25 and by brute force over the vectors, per question."""
        if name not in self._rankings:
            index = self._work / "bm25"
            if not index.exists():
                bm25.build(self._passages, index)
            self._rankings[name] = (
                asyncio.run(self._bm25(index, name)),
                [
                    tuple(
                        Hit(self._passages[place], float(scores[place]))
                        for place in np.argsort(-scores, kind="stable")[:DEPTH]
                    )
                    for scores in self.of_questions(name) @ self.of_passages().T
                ],
            )
        return self._rankings[name]

    async def _bm25(self, index: Path, name: str) -> Ranking:
        async with aclosing(EmbeddedIndex(index)) as retriever:
            return await hits_of(retriever, [question.text for question in self._sets[name]], DEPTH)

    def found(self, name: str, ranking: Ranking, k: int) -> list[float]:
        """Per question, 1 if a gold answer is in the first k passages, otherwise 0."""
        ranks = [first_rank(q.gold_answers, hits[:k]) for q, hits in zip(self._sets[name], ranking, strict=True)]
        return [float(rank is not None) for rank in ranks]

    def fused(self, name: str, method: Any, weight: float) -> Ranking:
        settings = FusionSettings(
            of=("bm25:a", "bm25:b"), method=method, weights=(1 - weight, weight), candidates=DEPTH
        )
        fusion = Fusion([Fixed(ranking) for ranking in self.rankings(name)], settings)
        return asyncio.run(hits_of(fusion, [question.text for question in self._sets[name]], DEPTH))

    def recall(self) -> Iterator[Table]:
        table = Table(title="Gold answer in the first 1, 3, 5, 10 passages")
        for heading in ("questions", "n", "BM25", "encoder", "both, RRF"):
            table.add_column(heading)
        for name, questions in self._sets.items():
            rankings = (*self.rankings(name), self.fused(name, "rrf", 0.5))
            cells = (" ".join(f"{np.mean(self.found(name, r, k)):.3f}" for k in CUTOFFS) for r in rankings)
            table.add_row(name, str(len(questions)), *cells)
        yield table

    def fusion(self) -> Iterator[Table]:
        table = Table(title="Fusion with BM25: chosen on one half of the questions, reported on the other")
        for heading in (
            "questions",
            "chosen on",
            "method",
            "weight",
            "n",
            "recall",
            "BM25",
            "fusion",
            "difference, 95 %",
        ):
            table.add_column(heading)
        for name, questions in self._sets.items():
            choices = list(itertools.product(("rrf", "scores"), WEIGHTS))
            tried = {choice: self.fused(name, *choice) for choice in choices}
            halves = [list(range(start, len(questions), 2)) for start in (0, 1)]
            at_5 = {choice: self.found(name, ranking, 5) for choice, ranking in tried.items()}
            for (chosen_on, half), other in zip((("even", halves[0]), ("odd", halves[1])), halves[::-1], strict=True):
                best = max(choices, key=lambda choice: sum(at_5[choice][place] for place in half))
                for k in (1, 5, 10):
                    before, after = (
                        [self.found(name, ranking, k)[place] for place in other]
                        for ranking in (self.rankings(name)[0], tried[best])
                    )
                    gain = paired_difference(before, after)
                    table.add_row(
                        *(name, chosen_on, best[0], f"{best[1]:.1f}", str(len(other)), f"@{k}"),
                        *(f"{np.mean(before):.3f}", f"{np.mean(after):.3f}"),
                        f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]",
                    )
        yield table

    def everything(self) -> tuple[list[Passage], Vectors]:
        """Passages, then their sentences, with vectors."""
        sentences = [
            Passage(f"{passage.id}.{number}", "", sentence)
            for passage in self._passages
            for number, sentence in enumerate(re.split(r"(?<=[.!?])\s+", passage.text))
            if sentence.strip()
        ]
        vectors = self.vectors("sentences", [sentence.text for sentence in sentences], self.encoder.passages)
        return [*self._passages, *sentences], np.concatenate([self.of_passages(), vectors])

    def build(self, path: Path, passages: Iterator[Passage], blocks: Iterator[Vectors], precision: Any) -> None:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        known = Known(blocks, self.encoder.dimensions, self.encoder.weights)
        options = DenseOptions(encoder=self._settings, vectors=precision)
        _Build(path, options, known).run(passages, lambda done: None)  # type: ignore[arg-type]

    def open(self, path: Path, *, exact: bool = False) -> DenseIndex:
        return DenseIndex(path, Settings(url=f"dense:{path}", exact=exact))

    def speed(self) -> Iterator[Table]:
        passages, vectors = self.everything()
        asked = np.concatenate([self.of_questions(name) for name in self._sets])
        asked = asked[np.random.default_rng(7).permutation(len(asked))[:500]]
        truth = [set(np.argsort(-(vectors @ query), kind="stable")[:10].tolist()) for query in asked]
        ways: dict[str, DenseIndex] = {}
        for precision in ("float32", "float16", "int8"):
            path = self._work / f"index-{precision}"
            self.build(path, iter(passages), iter(np.split(vectors, range(1000, len(vectors), 1000))), precision)
            ways |= {f"exact, {precision}": self.open(path, exact=True), f"graph, {precision}": self.open(path)}
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        recall: dict[str, list[float]] = {way: [] for way in ways}
        for query, nearest in zip(asked, truth, strict=True):
            for way, index in ways.items():
                started = time.perf_counter()
                ordinals, _ = index.nearest(query, 10)
                seconds[way].append(time.perf_counter() - started)
                recall[way].append(len(nearest & set(ordinals.tolist())) / 10)
        table = Table(title=f"{len(vectors):,} vectors, {len(asked)} questions, one at a time, one thread")
        for heading in ("search", "recall@10 of brute force", "median ms", "x exact float32", "vectors MB"):
            table.add_column(heading, justify="right")
        median = {way: statistics.median(taken) for way, taken in seconds.items()}
        for way, index in ways.items():
            table.add_row(
                *(way, f"{np.mean(recall[way]):.4f}", f"{1000 * median[way]:.3f}"),
                *(
                    f"{median['exact, float32'] / median[way]:.1f}",
                    f"{(index.path / VECTORS).stat().st_size / 1e6:.0f}",
                ),
            )
        yield table

    def memory(self) -> Iterator[Table]:
        table = Table(title=f"{self._arguments.scale:,} vectors, float16")
        for heading in ("process", "seconds", "peak RSS MB", "anonymous MB at the end"):
            table.add_column(heading, justify="right")
        for part in ("build", "search"):
            run = subprocess.run([sys.executable, *sys.argv, "--child", part], check=True, stdout=subprocess.PIPE)
            found = json.loads(run.stdout)
            table.add_row(part, *(f"{found[key]:,.0f}" for key in ("seconds", "peak", "anonymous")))
        yield table

    def child(self, part: str) -> dict[str, float]:
        """Builds or searches the large index in this process."""
        path, scale = self._work / "index-large", self._arguments.scale
        started = time.perf_counter()
        if part == "build":
            real, draw = self.of_passages(), np.random.default_rng(7)

            def blocks() -> Iterator[Vectors]:
                for start in range(0, scale, 1000):
                    rows = real[draw.integers(0, len(real), min(1000, scale - start))]
                    rows = rows + draw.normal(0, 0.02, rows.shape).astype(np.float32)
                    yield rows / np.linalg.norm(rows, axis=1, keepdims=True)

            self.build(path, (Passage(str(number), "", "text") for number in range(scale)), blocks(), "float16")
        else:
            asked = np.concatenate([self.of_questions(name) for name in self._sets])
            index = self.open(path)
            for query in asked:
                index.nearest(query, 10)
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        peak, anonymous = (int(status[key].split()[0]) / 1000 for key in ("VmHWM", "RssAnon"))
        return {"seconds": time.perf_counter() - started, "peak": peak, "anonymous": anonymous}


if __name__ == "__main__":
    main()
