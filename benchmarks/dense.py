"""Dense retrieval with a real encoder: recall compared with BM25, fusion, approximate search, precision, memory.

    export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
    python benchmarks/dense.py MODEL CORPUS --questions A.jsonl B.jsonl --work FOLDER [--parts recall fusion …]

MODEL is a Hugging Face folder (all-MiniLM-L6-v2, for example). FOLDER keeps the vectors in parts of 1,024 texts, so
that an interrupted run continues, and the indexes of `speed`: use another folder for another model, corpus or version.
`--bfloat16` encodes in that precision, which is faster on a CPU with AMX.

- recall: share of questions with a gold answer in the first k passages of BM25, of the encoder (compared with every
  passage), and of both with equal weights in reciprocal rank fusion;
- fusion: method and weight chosen for recall@5 on one half of each set (questions with even numbers), reported on the
  other half, and the reverse; then the two reports together. Paired 95 % interval of the difference to BM25;
- speed: passages and their sentences, one question at a time on one thread. Recall is that of the first 10 of brute
  force over float32, computed here; ratios are to brute force by one matrix product of numpy, float32 in memory, in the
  same run;
- faiss (not among the default parts; needs `pip install faiss-cpu`): its HNSW graph compared with usearch's, over the
  texts of `speed`. Both have the same links per node and expansion of the build, int8 vectors, and candidates that are
  ordered by float32. Each is timed at the smallest expansion of `EXPANSIONS` with recall@10 of at least .98. Then each
  is mapped into memory by a process of its own, which searches for all questions;
- memory: `--scale` vectors, real ones with noise, built and searched in processes of their own. Peak RSS (VmHWM) counts
  the pages of mapped files; anonymous memory (RssAnon) does not. The graph is built with expansion 32, which makes the
  build several times faster and does not change its memory.
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
from r1searcher.retrieval.indexing.dense import VECTORS, _Build, graph
from r1searcher.retrieval.indexing.manifest import is_index
from r1searcher.retrieval.links.fusion import Fusion
from r1searcher.retrieval.links.fusion import Settings as FusionSettings
from r1searcher.retrieval.neural.encoder import Encoder, settings_for
from r1searcher.retrieval.neural.text import text_of

Vectors = npt.NDArray[np.float32]
Ranking = Sequence[tuple[Hit, ...]]

CANDIDATES = 64
"""Passages of a graph that are ordered by their float32 vectors."""

TURN = 50
"""Questions that each way to search answers in a row."""

DEPTH = 100
"""Passages of each ranking that are fused."""

PARTS = ("recall", "fusion", "speed", "memory")
PART = 1024
EXPANSIONS = (64, 80, 96, 112, 128, 160, 192, 256, 384, 512)
ENOUGH = 0.98
"""Recall@10 at which graphs are compared."""

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
"""Weights of the encoder's ranking that are tried; BM25's is 1 less that."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--questions", type=Path, nargs="+", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=[*PARTS, "faiss"], default=PARTS)
    parser.add_argument("--scale", type=int, default=1_000_000)
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--no-sentences", action="store_true", help="speed and faiss: the passages alone")
    parser.add_argument("--child", choices=["build", "search", "usearch", "faiss"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if {os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")} != {"1"}:
        parser.error("export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 first: one thread is measured")
    bench = Bench(arguments)
    if arguments.child:
        print(json.dumps(bench.child(arguments.child)))
        return
    for part in arguments.parts:
        for table in getattr(bench, part)():
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


class UsearchGraph:
    """The graph of our indexes."""

    def __init__(self, dimensions: int) -> None:
        self._graph = graph(dimensions)

    def build(self, vectors: Vectors) -> None:
        self._graph.add(np.arange(len(vectors)), vectors, threads=1)

    def save(self, path: Path) -> None:
        self._graph.save(str(path))

    def map(self, path: Path) -> None:
        self._graph.view(str(path))

    def candidates(self, query: Vectors, count: int, expansion: int) -> Any:
        self._graph.expansion_search = expansion
        return self._graph.search(query, count, threads=1).keys.astype(np.int64)


class FaissGraph:
    """The same graph by faiss."""

    def __init__(self, dimensions: int) -> None:
        try:
            import faiss
        except ImportError:
            raise SystemExit("the part faiss needs faiss-cpu: pip install faiss-cpu") from None
        faiss.omp_set_num_threads(1)
        self._faiss = faiss
        self._graph = faiss.IndexHNSWSQ(dimensions, faiss.ScalarQuantizer.QT_8bit, 32, faiss.METRIC_INNER_PRODUCT)
        self._graph.hnsw.efConstruction = 256

    def build(self, vectors: Vectors) -> None:
        self._graph.train(vectors)
        self._graph.add(vectors)

    def save(self, path: Path) -> None:
        self._faiss.write_index(self._graph, str(path))

    def map(self, path: Path) -> None:
        self._graph = self._faiss.read_index(str(path), self._faiss.IO_FLAG_MMAP_IFC)

    def candidates(self, query: Vectors, count: int, expansion: int) -> Any:
        self._graph.hnsw.efSearch = expansion
        return self._graph.search(query[None], count)[1][0]


GRAPHS: dict[str, Any] = {"usearch": UsearchGraph, "faiss": FaissGraph}


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
            "recall",
            "n",
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
            both: dict[int, tuple[list[float], list[float]]] = {k: ([], []) for k in (1, 5, 10)}
            for (chosen_on, half), other in zip((("even", halves[0]), ("odd", halves[1])), halves[::-1], strict=True):
                best = max(choices, key=lambda choice: sum(at_5[choice][place] for place in half))
                for k, (before, after) in both.items():
                    all_ = (self.found(name, ranking, k) for ranking in (self.rankings(name)[0], tried[best]))
                    pair = tuple([found[place] for place in other] for found in all_)
                    table.add_row(name, chosen_on, best[0], f"{best[1]:.1f}", f"@{k}", *_compared(*pair))
                    before += pair[0]
                    after += pair[1]
            for k, pair in both.items():
                table.add_row(name, "each half", "", "", f"@{k}", *_compared(*pair))
        yield table

    def everything(self) -> tuple[list[Passage], Vectors]:
        """Passages, then their sentences, with vectors."""
        if self._arguments.no_sentences:
            return self._passages, self.of_passages()
        sentences = [
            Passage(f"{passage.id}.{number}", "", sentence)
            for passage in self._passages
            for number, sentence in enumerate(re.split(r"(?<=[.!?])\s+", passage.text))
            if sentence.strip()
        ]
        vectors = self.vectors("sentences", [sentence.text for sentence in sentences], self.encoder.passages)
        return [*self._passages, *sentences], np.concatenate([self.of_passages(), vectors])

    def build(
        self, path: Path, passages: Iterator[Passage], blocks: Iterator[Vectors], precision: Any, expansion: int = 0
    ) -> None:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        known = Known(blocks, self.encoder.dimensions, self.encoder.weights)
        options = DenseOptions(encoder=self._settings, vectors=precision)
        build = _Build(path, options, known)  # type: ignore[arg-type]
        build._graph.expansion_add = expansion or build._graph.expansion_add
        build.run(passages, lambda done: None)

    def open(self, path: Path, *, exact: bool = False) -> DenseIndex:
        return DenseIndex(path, Settings(url=f"dense:{path}", exact=exact))

    def asked(self, vectors: Vectors) -> tuple[Vectors, list[set[int]]]:
        """500 questions, and what is nearest to each."""
        asked = np.concatenate([self.of_questions(name) for name in self._sets])
        asked = asked[np.random.default_rng(7).permutation(len(asked))[:500]]
        return asked, [set(np.argsort(-(vectors @ query), kind="stable")[:10].tolist()) for query in asked]

    def speed(self) -> Iterator[Table]:
        passages, vectors = self.everything()
        asked, truth = self.asked(vectors)
        indexes: dict[str, DenseIndex] = {}
        for precision in ("float32", "float16", "int8"):
            path = self._work / f"index-{precision}"
            if not is_index(path):
                self.build(path, iter(passages), iter(np.split(vectors, range(1000, len(vectors), 1000))), precision)
            indexes |= {f"exact, {precision}": self.open(path, exact=True), f"graph, {precision}": self.open(path)}
        taken, found = _timed(
            {
                "exact, numpy": lambda query: _first_10(np.arange(len(vectors)), vectors @ query),
                **{way: lambda query, index=index: index.nearest(query, 10)[0] for way, index in indexes.items()},
            },
            asked,
        )
        table = Table(title=f"{len(vectors):,} vectors, {len(asked)} questions, one at a time, one thread")
        for heading in ("search", "recall@10 of brute force", "median ms", "x exact, numpy", "vectors MB"):
            table.add_column(heading, justify="right")
        for way in taken:
            size = (indexes[way].path / VECTORS).stat().st_size if way in indexes else vectors.nbytes
            table.add_row(
                *(way, f"{_recall(truth, found[way]):.4f}", f"{1000 * taken[way]:.3f}"),
                *(f"{taken['exact, numpy'] / taken[way]:.1f}", f"{size / 1e6:.0f}"),
            )
        yield table

    def faiss(self) -> Iterator[Table]:
        import faiss

        _, vectors = self.everything()
        asked, truth = self.asked(vectors)
        flat = faiss.IndexFlatIP(vectors.shape[1])
        flat.add(vectors)
        ways: dict[str, Callable[[Vectors], Any]] = {
            "exact, numpy": lambda query: _first_10(np.arange(len(vectors)), vectors @ query),
            "exact, faiss": lambda query: flat.search(query[None], 10)[1][0],
        }
        built: dict[str, float] = {}
        chosen: dict[str, int] = {}
        for name, kind in GRAPHS.items():
            one = kind(vectors.shape[1])
            started = time.process_time()
            one.build(vectors)
            built[name] = time.process_time() - started
            one.save(self._work / f"graph.{name}")
            for chosen[name] in EXPANSIONS:
                found = [_reordered(one, query, chosen[name], vectors) for query in asked]
                if _recall(truth, found) >= ENOUGH:
                    break
            ways[name] = lambda query, one=one, expansion=chosen[name]: _reordered(one, query, expansion, vectors)
        taken, found = _timed(ways, asked)
        table = Table(title=f"{len(vectors):,} vectors, {len(asked)} questions, one at a time, one thread")
        for heading in ("search", "expansion", "recall@10", "median ms", "x exact, numpy", "CPU s of the build"):
            table.add_column(heading, justify="right")
        for way in ways:
            table.add_row(
                *(way, str(chosen.get(way, "")), f"{_recall(truth, found[way]):.4f}", f"{1000 * taken[way]:.3f}"),
                *(f"{taken['exact, numpy'] / taken[way]:.1f}", f"{built[way]:.0f}" if way in built else ""),
            )
        yield table
        table = Table(title="Mapped into memory, with the largest expansion")
        for heading in ("graph", "file MB", "ms to open", "private MB", "resident MB"):
            table.add_column(heading, justify="right")
        for name in GRAPHS:
            used = self.in_a_process(name)
            table.add_row(
                *(name, f"{(self._work / f'graph.{name}').stat().st_size / 1e6:.0f}"),
                *(f"{used[key]:.1f}" for key in ("open", "anonymous", "resident")),
            )
        yield table

    def mapped(self, name: str) -> dict[str, float]:
        """What the mapped graph adds to the memory of this process, after all questions."""
        asked = np.concatenate([self.of_questions(name) for name in self._sets])
        one, before = GRAPHS[name](asked.shape[1]), _memory()
        started = time.perf_counter()
        one.map(self._work / f"graph.{name}")
        opened = 1000 * (time.perf_counter() - started)
        for query in asked:
            one.candidates(query, CANDIDATES, EXPANSIONS[-1])
        after = _memory()
        return {
            "open": opened,
            "anonymous": after["RssAnon"] - before["RssAnon"],
            "resident": after["VmRSS"] - before["VmRSS"],
        }

    def in_a_process(self, child: str) -> dict[str, float]:
        run = subprocess.run([sys.executable, *sys.argv, "--child", child], check=True, stdout=subprocess.PIPE)
        found: dict[str, float] = json.loads(run.stdout)
        return found

    def memory(self) -> Iterator[Table]:
        table = Table(title=f"{self._arguments.scale:,} vectors, float16")
        for heading in ("process", "seconds", "peak RSS MB", "anonymous MB at the end"):
            table.add_column(heading, justify="right")
        for part in ("build", "search"):
            found = self.in_a_process(part)
            table.add_row(part, *(f"{found[key]:,.0f}" for key in ("seconds", "peak", "anonymous")))
        yield table

    def child(self, part: str) -> dict[str, float]:
        """Builds or searches the large index, or maps a graph, in this process."""
        if part in GRAPHS:
            return self.mapped(part)
        path, scale = self._work / "index-large", self._arguments.scale
        started = time.perf_counter()
        if part == "build":
            real, draw = self.of_passages(), np.random.default_rng(7)

            def blocks() -> Iterator[Vectors]:
                for start in range(0, scale, 1000):
                    rows = real[draw.integers(0, len(real), min(1000, scale - start))]
                    rows = rows + draw.normal(0, 0.02, rows.shape).astype(np.float32)
                    yield rows / np.linalg.norm(rows, axis=1, keepdims=True)

            self.build(path, (Passage(str(number), "", "text") for number in range(scale)), blocks(), "float16", 32)
        else:
            asked = np.concatenate([self.of_questions(name) for name in self._sets])
            index = self.open(path)
            for query in asked:
                index.nearest(query, 10)
        used = _memory()
        return {"seconds": time.perf_counter() - started, "peak": used["VmHWM"], "anonymous": used["RssAnon"]}


def _compared(before: Sequence[float], after: Sequence[float]) -> tuple[str, ...]:
    """Number, both means, and the difference with its interval."""
    gain = paired_difference(before, after)
    return (
        *(str(len(before)), f"{np.mean(before):.3f}", f"{np.mean(after):.3f}"),
        f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]",
    )


def _memory() -> dict[str, float]:
    """What the system says about the memory of this process, in MB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {key: int(status[key].split()[0]) / 1000 for key in ("VmHWM", "VmRSS", "RssAnon")}


def _first_10(ordinals: Any, scores: Vectors) -> Any:
    best = np.argpartition(-scores, 9)[:10]
    return ordinals[best]


def _reordered(one: Any, query: Vectors, expansion: int, vectors: Vectors) -> Any:
    candidates = one.candidates(query, CANDIDATES, expansion)
    return _first_10(candidates, vectors[candidates] @ query)


def _recall(truth: Sequence[set[int]], found: Sequence[Any]) -> float:
    return float(np.mean([len(nearest & set(map(int, ten))) / 10 for nearest, ten in zip(truth, found, strict=True)]))


def _timed(ways: dict[str, Callable[[Vectors], Any]], asked: Vectors) -> tuple[dict[str, float], dict[str, list[Any]]]:
    """The median seconds of each way, and what each found. They alternate every `TURN` questions: after each question,
    an exact search would have emptied the processor's caches for the next way."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    found: dict[str, list[Any]] = {way: [] for way in ways}
    for start in range(0, len(asked), TURN):
        for way, search in ways.items():
            for query in asked[start : start + TURN]:
                started = time.perf_counter()
                found[way].append(search(query))
                seconds[way].append(time.perf_counter() - started)
    return {way: statistics.median(taken) for way, taken in seconds.items()}, found


if __name__ == "__main__":
    main()
