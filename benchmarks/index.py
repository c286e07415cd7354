"""The embedded index compared with others: build, memory, query, open. Each step runs in its own process.

    python benchmarks/index.py --passages 1000000 --work /tmp/bench      (pip install bm25s numba for that engine)
    python benchmarks/index.py --elasticsearch http://127.0.0.1:9200     (a running server, as another engine)

CPU seconds are those of the whole process with its threads, and of Elasticsearch's process for that engine, so that a
busy machine changes them little. `x fastest` is passages per CPU second relative to the fastest engine of the same run.
"""

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from corpus import queries, write_corpus

ENGINES = ("r1searcher", "tantivy", "bm25s")
ES_INDEX = "bench-index"
ROUNDS = 3


def rows(corpus: Path) -> Iterator[dict[str, str]]:
    with corpus.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def build_r1searcher(corpus: Path, index: Path) -> None:
    from r1searcher.corpora.readers import Corpus
    from r1searcher.retrieval.indexing.bm25 import build

    build(Corpus(corpus), index)


def _tantivy_schema() -> Any:
    import tantivy

    builder = tantivy.SchemaBuilder()
    builder.add_bytes_field("passage", stored=True)
    return builder.add_text_field("contents", tokenizer_name="en_stem", index_option="freq").build()


def build_tantivy(corpus: Path, index: Path) -> None:
    """The bindings as their README uses them, with tantivy's own English tokenizer."""
    import tantivy

    index.mkdir()
    writer = tantivy.Index(_tantivy_schema(), str(index)).writer(128_000_000, 1)
    with corpus.open("rb") as lines:
        for line in lines:
            row = json.loads(line)
            writer.add_document(tantivy.Document(contents=f"{row['title']} {row['text']}", passage=line))
    writer.commit()
    writer.wait_merging_threads()


def build_bm25s(corpus: Path, index: Path) -> None:
    import bm25s

    kept = list(rows(corpus))
    tokens = bm25s.tokenize([f"{row['title']} {row['text']}" for row in kept], stopwords="en", show_progress=False)
    retriever = bm25s.BM25(corpus=kept, k1=1.2, b=0.75)
    retriever.index(tokens, show_progress=False)
    retriever.save(str(index))


def build_elasticsearch(corpus: Path, server: str) -> None:
    """The client's own bulk helper with bare dicts, into one shard."""
    from elasticsearch import Elasticsearch
    from elasticsearch.helpers import parallel_bulk

    client = Elasticsearch(server, request_timeout=120)
    client.options(ignore_status=404).indices.delete(index=ES_INDEX)
    client.indices.create(
        index=ES_INDEX,
        settings={"number_of_shards": 1, "number_of_replicas": 0, "refresh_interval": "-1"},
        mappings={"properties": {"contents": {"type": "text", "analyzer": "english"}}},
    )
    actions = ({"_index": ES_INDEX, "contents": f"{row['title']} {row['text']}"} for row in rows(corpus))
    for _ in parallel_bulk(client, actions, thread_count=2, chunk_size=1000):
        pass
    client.indices.refresh(index=ES_INDEX)


def elasticsearch_figures(server: str) -> dict[str, float]:
    """Resources of the server's process: CPU seconds so far, peak heap, bytes of the index."""
    from elasticsearch import Elasticsearch

    with Elasticsearch(server) as client:
        (node,) = client.nodes.stats(metric="process,jvm")["nodes"].values()
        found = client.options(ignore_status=404).indices.stats(index=ES_INDEX, metric="store").body
    return {
        "cpu_s": node["process"]["cpu"]["total_in_millis"] / 1000,
        "peak_mb": sum(pool["peak_used_in_bytes"] for pool in node["jvm"]["mem"]["pools"].values()) / 2**20,
        "disk_mb": found.get("_all", {}).get("primaries", {}).get("store", {}).get("size_in_bytes", 0) / 1e6,
    }


def open_elasticsearch(server: str) -> Callable[[str], Any]:
    from elasticsearch import Elasticsearch

    client = Elasticsearch(server, request_timeout=120)
    client.info()
    return lambda query: client.search(index=ES_INDEX, query={"match": {"contents": query}}, size=5)


def open_r1searcher(index: Path) -> Callable[[str], Any]:
    from r1searcher.retrieval.engines.bm25 import EmbeddedIndex

    opened = EmbeddedIndex(index)
    return lambda query: opened.search_one(query, 5)


def open_raw(index: Path) -> Callable[[str], Any]:
    """Our index through tantivy's bindings alone, the baseline for the cost of the wrapper."""
    import tantivy

    from r1searcher.retrieval.indexing.analyzer import Analyzer
    from r1searcher.retrieval.indexing.manifest import decode

    opened = tantivy.Index.open(str(index / "tantivy"))
    schema, searcher, analyzer = opened.schema, opened.searcher(), Analyzer()

    def search(query: str) -> Any:
        clauses = [
            (tantivy.Occur.Should, tantivy.Query.term_query(schema, "terms", term, "freq"))
            for term in analyzer.terms(query)
        ]
        hits = searcher.search(tantivy.Query.boolean_query(clauses), 5, count=False).hits
        return [(decode(searcher.doc(address)["passage"][0]), score) for score, address in hits]

    return search


def open_tantivy(index: Path) -> Callable[[str], Any]:
    import re

    import tantivy

    opened = tantivy.Index.open(str(index))
    searcher = opened.searcher()

    def search(query: str) -> Any:
        asked = opened.parse_query(" ".join(re.findall(r"\w+", query)).lower(), ["contents"])
        return [
            (json.loads(searcher.doc(address)["passage"][0]), score)
            for score, address in searcher.search(asked, 5, False).hits
        ]

    return search


def open_bm25s(index: Path) -> Callable[[str], Any]:
    import bm25s

    retriever = bm25s.BM25.load(str(index), mmap=True, load_corpus=True)
    retriever.backend = "numba"
    retriever.activate_numba_scorer()
    return lambda query: retriever.retrieve(
        bm25s.tokenize(query, stopwords="en", show_progress=False), k=5, show_progress=False, backend_selection="numba"
    )


def measure_build(engine: str, corpus: Path, index: Path) -> dict[str, float]:
    started, cpu = time.perf_counter(), time.process_time()
    if engine.startswith("http"):
        server = elasticsearch_figures(engine)
        build_elasticsearch(corpus, engine)
        after = elasticsearch_figures(engine)
        of_server = after["cpu_s"] - server["cpu_s"]
        return {**after, "cpu_s": time.process_time() - cpu + of_server, "wall_s": time.perf_counter() - started}
    {"r1searcher": build_r1searcher, "tantivy": build_tantivy, "bm25s": build_bm25s}[engine](corpus, index)
    return {
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - started,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "disk_mb": sum(file.stat().st_size for file in index.rglob("*") if file.is_file()) / 1e6,
    }


def measure_queries(engine: str, index: Path) -> dict[str, float]:
    openers: dict[str, Callable[[Path], Callable[[str], Any]]]
    openers = {"r1searcher": open_r1searcher, "tantivy": open_tantivy, "bm25s": open_bm25s}
    server = engine if engine.startswith("http") else None
    opened = (lambda: open_elasticsearch(server)) if server else (lambda: openers[engine](index))
    opened()  # exclude imports and page cache from the timing

    def cpu_now() -> float:
        return time.process_time() + (elasticsearch_figures(server)["cpu_s"] if server else 0.0)

    started = time.perf_counter()
    search = opened()
    result = {"open_s": time.perf_counter() - started}
    for kind in ("questions", "queries"):
        asked = queries(kind)
        for query in asked:  # warm
            search(query)
        times = []
        for _ in range(ROUNDS):
            cpu = cpu_now()
            for query in asked:
                search(query)
            times.append((cpu_now() - cpu) / len(asked) * 1000)
        result[f"{kind}_ms"] = statistics.median(times)
    return result


def measure_wrapper(index: Path) -> dict[str, float]:
    """CPU of our search relative to tantivy's bindings alone, alternating in one process."""
    searches = (open_r1searcher(index), open_raw(index))
    result = {}
    for kind in ("questions", "queries"):
        ratios = []
        for _ in range(5 * ROUNDS):
            spent = [0, 0]
            for number, query in enumerate(queries(kind)):
                for which in (0, 1) if number % 2 else (1, 0):  # the second finds the caches warm
                    started = time.thread_time_ns()
                    searches[which](query)
                    spent[which] += time.thread_time_ns() - started
            ratios.append(spent[0] / spent[1])
        result[kind] = statistics.median(ratios)
    return result


def in_process(*arguments: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--work", type=Path, default=Path("/tmp/r1s-bench"))
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--elasticsearch", help="A running server, as another engine: http://127.0.0.1:9200.")
    parser.add_argument("--step", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    corpus = options.work / f"corpus-{options.passages}.jsonl"
    if options.step:
        kind, engine, index = options.step
        steps = {
            "build": lambda: measure_build(engine, corpus, Path(index)),
            "query": lambda: measure_queries(engine, Path(index)),
            "wrapper": lambda: measure_wrapper(Path(index)),
        }
        result = steps[kind]()
        print(json.dumps(result))
        return
    options.work.mkdir(parents=True, exist_ok=True)
    write_corpus(corpus, options.passages)
    engines = options.engines.split(",") + ([options.elasticsearch] if options.elasticsearch else [])
    common = ("--passages", str(options.passages), "--work", str(options.work), "--step")
    built, asked = {}, {}
    for engine in engines:
        index = options.work / f"{engine.partition(':')[0]}-{options.passages}"
        shutil.rmtree(index, ignore_errors=True)
        built[engine] = in_process(*common, "build", engine, str(index))
        asked[engine] = in_process(*common, "query", engine, str(index))
        print(f"{engine}: {built[engine]} {asked[engine]}", file=sys.stderr, flush=True)
    ours = str(options.work / f"r1searcher-{options.passages}")
    wrapper = in_process(*common, "wrapper", "r1searcher", ours)
    fastest = min(row["cpu_s"] for row in built.values())
    print(f"\n{options.passages:,} passages\n")
    print(
        "| engine | build CPU s | passages/CPU s | x fastest | peak MB | disk MB | open s | question ms | keyword ms |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for engine in engines:
        b, q = built[engine], asked[engine]
        name = "Elasticsearch" if engine == options.elasticsearch else engine
        print(
            f"| {name} | {b['cpu_s']:.1f} | {options.passages / b['cpu_s']:,.0f} | {fastest / b['cpu_s']:.2f} "
            f"| {b['peak_mb']:,.0f} | {b['disk_mb']:,.0f} | {q['open_s']:.3f} "
            f"| {q['questions_ms']:.3f} | {q['queries_ms']:.3f} |"
        )
    if "bm25s" in asked:
        for kind in ("questions", "queries"):
            ratio = asked["r1searcher"][f"{kind}_ms"] / asked["bm25s"][f"{kind}_ms"]
            print(f"\n{kind}: r1searcher / bm25s-numba, CPU: {ratio:.2f}")
    for kind, ratio in wrapper.items():
        print(f"{kind}: r1searcher / the same index by raw bindings, CPU: {ratio:.3f}")


if __name__ == "__main__":
    main()
