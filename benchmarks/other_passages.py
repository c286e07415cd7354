"""Serves passages that have nothing to do with the query, or none: what does a model answer without evidence?

    python benchmarks/other_passages.py CORPUS.jsonl --port 8001            # passages drawn by the query and the seed
    python benchmarks/other_passages.py --port 8002                         # no passages: the model's own knowledge
    r1s evaluate RUN --dataset QUESTIONS.jsonl --retriever http://127.0.0.1:8001/retrieve

The difference to the score with a real search engine is what the model reads in the passages that it finds.
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from r1searcher.corpora.passage import Passage
from r1searcher.corpora.readers import read_passages
from r1searcher.retrieval.base import Health, Hit, SearchResult
from r1searcher.retrieval.server import make_app


class Drawn:
    """A search engine that returns passages drawn at random, the same ones for the same query and seed."""

    def __init__(self, passages: Sequence[Passage], seed: int) -> None:
        self._passages = passages
        self._seed = seed

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        return [SearchResult(tuple(self._drawn(query, top_k))) for query in queries]

    def _drawn(self, query: str, top_k: int) -> list[Hit]:
        draw = random.Random(f"{self._seed}:{query}")
        chosen = draw.sample(self._passages, min(top_k, len(self._passages)))
        return [Hit(passage, 1 / rank) for rank, passage in enumerate(chosen, 1)]

    async def health(self) -> Health:
        return Health("drawn at random", len(self._passages), f"seed {self._seed}")

    async def aclose(self) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, nargs="?", help="passages to draw from; none if left out")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    passages = list(read_passages(arguments.corpus)) if arguments.corpus else []
    uvicorn.run(make_app(Drawn(passages, arguments.seed)), host="127.0.0.1", port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
