"""Loading Elasticsearch: our loader compared with the client's own `parallel_bulk` over bare dicts.

    python benchmarks/elasticsearch_load.py http://127.0.0.1:9200 --passages 100000

Both get one shard, two threads and the same passages; each runs --rounds times, alternating, and the best round counts.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from corpus import write_corpus
from elasticsearch import Elasticsearch
from elasticsearch.helpers import parallel_bulk

from r1searcher.corpora.readers import Corpus
from r1searcher.retrieval.indexing.base import IndexOptions
from r1searcher.retrieval.indexing.elasticsearch import load


def theirs(server: str, corpus: Path) -> float:
    client = Elasticsearch(server, request_timeout=120)
    client.options(ignore_status=404).indices.delete(index="bench-theirs")
    client.indices.create(
        index="bench-theirs",
        settings={"number_of_shards": 1, "number_of_replicas": 0, "refresh_interval": "-1"},
        mappings={"properties": {"contents": {"type": "text", "analyzer": "english"}, "id": {"type": "keyword"}}},
    )

    def actions() -> Iterator[dict[str, Any]]:
        with corpus.open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                yield {"_index": "bench-theirs", "id": row["id"], "contents": f"{row['title']} {row['text']}"}

    started = time.perf_counter()
    for _ in parallel_bulk(client, actions(), thread_count=2, chunk_size=1000):
        pass
    client.indices.refresh(index="bench-theirs")
    return time.perf_counter() - started


def ours(server: str, corpus: Path) -> float:
    options = IndexOptions(overwrite=True, restart=True)
    started = time.perf_counter()
    load(Corpus(corpus), server.replace("http", "es", 1) + "/bench-ours", options, threads=2)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server")
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("/tmp/r1s-bench"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    corpus = options.work / f"corpus-{options.passages}.jsonl"
    write_corpus(corpus, options.passages)
    times: dict[str, list[float]] = {"parallel_bulk": [], "r1s index-corpus": []}
    for _ in range(options.rounds):
        times["parallel_bulk"].append(theirs(options.server, corpus))
        times["r1s index-corpus"].append(ours(options.server, corpus))
    print(f"{options.passages:,} passages\n\n| loader | best s | passages/s | rounds |\n|---|---|---|---|")
    for name, seconds in times.items():
        rounds = ", ".join(f"{each:.1f}" for each in seconds)
        print(f"| {name} | {min(seconds):.1f} | {options.passages / min(seconds):,.0f} | {rounds} |")
    print(f"\nours / parallel_bulk, passages/s: {min(times['parallel_bulk']) / min(times['r1s index-corpus']):.2f}")


if __name__ == "__main__":
    main()
