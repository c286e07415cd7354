"""Elasticsearch, a real one: same ranking as the embedded index, and every way in which a server lets one down.

Tests with the fixture `server` run with the clients of Elasticsearch and of OpenSearch.

`make test-elasticsearch` runs these tests; tests/retrieval/nodes.py says where the server comes from.
"""

import asyncio
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch

from r1searcher.corpora.passage import Passage
from r1searcher.corpora.readers import read_passages
from r1searcher.errors import InputError, RetrieverError
from r1searcher.evaluation.recall_command import RecallRequest, run_recall
from r1searcher.retrieval import open_retriever
from r1searcher.retrieval.base import Hit, Retriever, hits_of
from r1searcher.retrieval.elastic import elasticsearch as client
from r1searcher.retrieval.engines.bm25 import EmbeddedIndex
from r1searcher.retrieval.indexing import elasticsearch as indexing
from r1searcher.retrieval.indexing.analyzer import Analyzer
from r1searcher.retrieval.indexing.base import IndexOptions
from r1searcher.retrieval.indexing.bm25 import build
from r1searcher.retrieval.indexing.command import IndexRequest, index_corpus
from r1searcher.retrieval.indexing.elasticsearch import load
from r1searcher.retrieval.indexing.manifest import IndexSettings
from tests.retrieval.nodes import Node, Server
from tests.retrieval.serving import post, search, serving

pytestmark = pytest.mark.elasticsearch


def passages(count: int, word: str = "town") -> Iterator[Passage]:
    for n in range(count):
        yield Passage(f"p{n}", f"Place {n % 7}", f"A {word} of many words, number{n}.")


def ids(url: str, query: str, top_k: int = 5) -> list[str]:
    return [hit.passage.id for hit in search(url, [query], top_k)[0]]


def check_whole(url: str, count: int, word: str = "town") -> None:
    """Every passage is there, once, in corpus order among equals."""
    assert ids(url, "many", 10_000) == [f"p{n}" for n in range(count)]
    assert search(url, ["number7"])[0][0].passage == Passage("p7", "Place 0", f"A {word} of many words, number7.")


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "_CHUNK", 100)
    monkeypatch.setattr(indexing, "_CHECKPOINT_EVERY", 300)


@pytest.mark.parametrize(
    ("corpus", "place", "hits"),
    [
        ("wikipedia", "wikipedia_index", "lucene_hits"),
        pytest.param("large_wikipedia", "large_index", "large_lucene_hits", marks=pytest.mark.shared),
    ],
)
def test_ranking_and_scores_are_those_of_the_embedded_index(
    server: Server, corpus: str, place: str, hits: str, request: pytest.FixtureRequest
) -> None:
    """With three shards and four loading threads."""
    url = server.url(corpus)
    manifest = load(read_passages(request.getfixturevalue(corpus)), url, IndexOptions(shards=3), threads=4)
    embedded = EmbeddedIndex(request.getfixturevalue(place))
    assert manifest == embedded.manifest
    queries = list(request.getfixturevalue(hits))
    for query, ours, theirs in zip(
        queries, asyncio.run(hits_of(embedded, queries, 5)), search(url, queries), strict=True
    ):
        assert [hit.passage for hit in ours] == [hit.passage for hit in theirs], query
        assert [hit.score for hit in ours] == pytest.approx([hit.score for hit in theirs], rel=1e-6), query


def test_shards_that_the_server_does_not_start_are_an_error_with_its_reason(
    server: Server, wikipedia: Path, wikipedia_index: Path
) -> None:
    """As on a disk that is almost full; the same command loads the passages after that."""
    url, template = server.url("waiting"), f"/_index_template/{server.name('waiting')}"
    nowhere = {"routing.allocation.require._name": "no-such-node"}
    body = {"index_patterns": [f"{server.name('waiting')}-*"], "priority": 500, "template": {"settings": nowhere}}
    server.request("PUT", template, body)
    try:
        with pytest.raises(RetrieverError, match=r"not started 1 of 1 shards of waiting.*-000001: node does not match"):
            load(read_passages(wikipedia), url, retry_timeout_s=0.5)
    finally:
        server.request("DELETE", template)
    server.request("PUT", f"/{server.name('waiting')}-000001/_settings", dict.fromkeys(nowhere))
    assert load(read_passages(wikipedia), url) == EmbeddedIndex(wikipedia_index).manifest


@pytest.mark.parametrize("name", ["english", "standard"])
@pytest.mark.parametrize(
    ("corpus", "hits"),
    [
        ("wikipedia", "lucene_hits"),
        pytest.param("large_wikipedia", "large_lucene_hits", marks=pytest.mark.shared),
    ],
)
def test_our_analyzer_makes_the_terms_that_elasticsearch_makes(
    node: Server, corpus: str, hits: str, name: str, request: pytest.FixtureRequest
) -> None:
    analyzer = Analyzer(name)
    texts = [f"{row.title} {row.text}" for row in read_passages(request.getfixturevalue(corpus))][::4]
    texts += request.getfixturevalue(hits)
    end = "qzqendqzq"
    with Elasticsearch(node.server) as client:
        for start in range(0, len(texts), 25):
            asked = texts[start : start + 25]
            parts = [part for text in asked for part in (text, end)]
            tokens = client.indices.analyze(analyzer=name, text=parts).body["tokens"]
            joined = " ".join(token["token"] for token in tokens)
            expected = [part.strip(" ").split(" ") if part.strip(" ") else [] for part in joined.split(end)[:-1]]
            assert [analyzer.terms(text) for text in asked] == expected


def test_many_searches_at_once(server: Server) -> None:
    url = server.url("many")
    load(passages(300), url)

    async def run() -> list[list[tuple[Hit, ...]]]:
        retriever = open_retriever(url)
        asked = [[f"number{n}", "many words"] for n in range(100)]
        found = await asyncio.gather(*(hits_of(retriever, queries, 3) for queries in asked))
        await retriever.aclose()
        return found

    found = asyncio.run(run())
    assert [first[0].passage.id for first, _ in found] == [f"p{n}" for n in range(100)]
    assert all([hit.passage.id for hit in second] == ["p0", "p1", "p2"] for _, second in found)


@pytest.mark.parametrize(
    "query",
    ["", '"', "(((", "a:b AND NOT", "\\", "[a TO b]", "\x00", "*", "/.*/", "\ud800", "x " * 50_000, "y" * 100_000],
)
def test_a_hostile_query_is_only_words(server: Server, query: str) -> None:
    url = server.url("hostile")
    if f"{server.name('hostile')}-000001" not in server.request("GET", "/*"):
        load(passages(20), url)
    assert ids(url, query) == ids(url, query)
    assert ids(url, f"number7 {query}")[0] == "p7"


def test_title_weight_k1_and_b_are_used(server: Server, tmp_path: Path) -> None:
    rows = [Passage("title", "Oslo", "a town"), Passage("text", "Some town", "Oslo, Oslo lies here among other ranks")]
    options = IndexOptions(settings=IndexSettings(title_weight=4.0))
    build(rows, tmp_path / "ix", options)
    load(rows, server.url("weighted"), options)
    for query in ("Oslo", "town ranks Oslo oslo"):
        ours = EmbeddedIndex(tmp_path / "ix").search_one(query, 5)
        theirs = search(server.url("weighted"), [query])[0]
        assert [hit.passage for hit in ours] == [hit.passage for hit in theirs]
        assert [hit.score for hit in ours] == pytest.approx([hit.score for hit in theirs], rel=1e-5)
    load(rows, server.url("flat"), IndexOptions(settings=IndexSettings(k1=0.0)))
    first, second = search(server.url("flat"), ["Oslo"])[0]
    assert first.score == second.score, "k1 0 counts a term once and no length"


def test_the_old_index_answers_until_the_new_one_is_whole(server: Server) -> None:
    url = server.url("switched")
    load(passages(50, "city"), url)

    def watched() -> Iterator[Passage]:
        for passage in passages(30, "village"):
            assert ids(url, "city", 100) == [f"p{n}" for n in range(50)]
            yield passage

    with pytest.raises(InputError, match="already filled: use it, choose another name, or add --overwrite"):
        load(passages(30, "village"), url)
    load(watched(), url, IndexOptions(overwrite=True))
    check_whole(url, 30, "village")
    assert ids(url, "city") == []
    name = server.name("switched")
    assert list(server.request("GET", f"/{name}-0*")) == [f"{name}-000002"]


def test_an_open_retriever_follows_the_switch(server: Server) -> None:
    url = server.url("followed")
    load(passages(5), url, IndexOptions(settings=IndexSettings(k1=0.0)))

    async def run() -> tuple[Hit, Hit, bool]:
        retriever = open_retriever(url)
        before = await retriever.health()
        (flat,) = (await hits_of(retriever, ["number3"], 1))[0]
        load(passages(5), url, IndexOptions(settings=IndexSettings(k1=3.0), overwrite=True))
        (steep,) = (await hits_of(retriever, ["number3"], 1))[0]
        after = await retriever.health()
        await retriever.aclose()
        return flat, steep, before.fingerprint == after.fingerprint

    flat, steep, same_settings = asyncio.run(run())
    assert not same_settings
    assert flat.passage == steep.passage
    assert [steep] == search(url, ["number3"])[0]
    assert flat.score != steep.score


@pytest.mark.usefixtures("small_chunks")
def test_a_node_killed_in_mid_indexing_is_waited_for(mortal_node: Node) -> None:
    """kill -9 of the server, started again while the loader waits: nothing lost, nothing doubled."""
    url = mortal_node.url("killed")
    restart = threading.Timer(1.0, mortal_node.start)

    def deadly() -> Iterator[Passage]:
        for n, passage in enumerate(passages(3000)):
            if n == 1500:
                mortal_node.kill()
                restart.start()
            yield passage

    try:
        load(deadly(), url, retry_timeout_s=180)
    finally:
        restart.join()
    check_whole(url, 3000)


@pytest.mark.usefixtures("small_chunks")
def test_a_node_that_stays_away_stops_the_load_and_the_same_command_goes_on(mortal_node: Node) -> None:
    url = mortal_node.url("away")

    def deadly() -> Iterator[Passage]:
        for n, passage in enumerate(passages(2000)):
            if n == 1500:
                mortal_node.kill()
            yield passage

    try:
        with pytest.raises(RetrieverError, match=r"does not answer .*What was acknowledged is kept; run the same"):
            load(deadly(), url, retry_timeout_s=0.5)
    finally:
        mortal_node.start()
    with pytest.raises(InputError, match=r"away at .* is not finished"):
        ids(url, "many")
    with pytest.raises(InputError, match="load of other passages or settings"):
        load(passages(2000, "other"), url)
    load(passages(2000), url)
    check_whole(url, 2000)


def _load_slowly(url: str, count: int, sent: "multiprocessing.Queue[int]") -> None:
    indexing._CHUNK, indexing._CHECKPOINT_EVERY = 100, 300

    def slow() -> Iterator[Passage]:
        for passage in passages(count):
            time.sleep(0.0005)
            yield passage

    load(slow(), url, on_progress=sent.put)


@pytest.mark.usefixtures("small_chunks")
def test_a_killed_loader_goes_on_where_it_stopped(node: Server) -> None:
    """kill -9 of our own process."""
    url = node.url("loader")
    spawn = multiprocessing.get_context("spawn")
    sent: multiprocessing.Queue[int] = spawn.Queue()
    process = spawn.Process(target=_load_slowly, args=(url, 5000, sent))
    process.start()
    while sent.get(timeout=600) < 1000:
        pass
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with pytest.raises(InputError, match="not finished"):
        ids(url, "many")
    progress: list[int] = []
    load(passages(5000), url, on_progress=progress.append)
    check_whole(url, 5000)


def test_a_node_killed_in_mid_search_is_an_error_and_never_an_empty_answer(mortal_node: Node) -> None:
    url = mortal_node.url("midsearch")
    load(passages(20), url)

    async def search_until_it_fails(retriever: Retriever) -> RetrieverError:
        while True:
            try:
                (found,) = await hits_of(retriever, ["number3"], 1)
            except RetrieverError as error:
                return error
            assert [hit.passage.id for hit in found] == ["p3"]

    async def run() -> list[RetrieverError]:
        retriever = open_retriever(url)
        searches = [asyncio.create_task(search_until_it_fails(retriever)) for _ in range(8)]
        await asyncio.sleep(0.5)
        await asyncio.to_thread(mortal_node.kill)
        errors = await asyncio.gather(*searches)
        await asyncio.to_thread(mortal_node.start)
        assert [hit.passage.id for hit in (await hits_of(retriever, ["number3"], 1))[0]] == ["p3"]
        await retriever.aclose()
        return errors

    for error in asyncio.run(run()):
        assert "docker compose up -d" in str(error)


@pytest.mark.usefixtures("small_chunks")
def test_a_disk_that_is_full_stops_the_load_at_once_and_the_same_command_goes_on(server: Server) -> None:
    url = server.url("blocked")

    def block(on: bool | None) -> None:
        name = server.name("blocked")
        server.request("PUT", f"/{name}-0*/_settings", {"index.blocks.read_only_allow_delete": on})

    def blocked() -> Iterator[Passage]:
        for n, passage in enumerate(passages(2000)):
            if n == 1000:
                block(True)
            yield passage

    with pytest.raises(RetrieverError, match=r"has blocked writing, usually because its disk is nearly full"):
        load(blocked(), url)
    block(None)
    load(passages(2000), url)
    check_whole(url, 2000)


def test_restart_throws_an_interrupted_load_away(server: Server) -> None:
    url = server.url("restarted")

    def broken() -> Iterator[Passage]:
        yield from passages(10)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(broken(), url)
    load(passages(20, "village"), url, IndexOptions(restart=True))
    check_whole(url, 20, "village")


def test_an_index_of_somebody_else_is_neither_searched_nor_touched(server: Server) -> None:
    server.fill("foreign", {"body": {"type": "text"}}, {"1": {"body": "precious"}})
    with pytest.raises(InputError, match=r"is not from `r1s index-corpus`: .*add \?fields=.*with text: body\)"):
        ids(server.url("foreign"), "precious")
    with pytest.raises(InputError, match="is not from `r1s index-corpus`: choose another name"):
        load(passages(1), server.url("foreign"), IndexOptions(overwrite=True, restart=True))
    assert server.request("GET", f"/{server.name('foreign')}/_count")["count"] == 1


def test_a_wrong_name_an_empty_corpus_and_a_huge_top_k(server: Server) -> None:
    with pytest.raises(InputError, match=f"has no index {server.name('nowhere')}: fill it with `r1s index-corpus"):
        ids(server.url("nowhere"), "x")
    with pytest.raises(InputError, match="does not contain a passage"):
        load([], server.url("empty"))
    load(passages(3), server.url("three"))
    with pytest.raises(InputError, match="at most 10,000 passages per query, not 10,001"):
        ids(server.url("three"), "many", 10_001)


def test_unreachable_is_one_sentence() -> None:
    with pytest.raises(
        RetrieverError, match=r"Elasticsearch at http://127.0.0.1:9 does not answer .*docker compose up"
    ):
        ids("es://127.0.0.1:9/x", "query")
    with pytest.raises(RetrieverError, match="does not answer"):
        load(passages(1), "es://127.0.0.1:9/x")


class _Other(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *args: object) -> None:
        pass


def test_a_server_that_is_not_elasticsearch_is_named_so() -> None:
    with HTTPServer(("127.0.0.1", 0), _Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(InputError, match="is not Elasticsearch"):
            ids(f"es://127.0.0.1:{server.server_address[1]}/x", "query")
        server.shutdown()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("es://host:9200", "write es://host:9200/name"),
        ("es://host:port/x", "host or port is malformed"),
        ("es://me:secret@host/x", "leave user and password out of the URL; set R1S_ELASTICSEARCH_API_KEY"),
        ("es://host/Upper", "is not a valid index name"),
    ],
)
def test_a_malformed_url_says_what_is_wanted(url: str, why: str) -> None:
    with pytest.raises(InputError, match=why) as raised:
        open_retriever(url)
    assert "secret" not in str(raised.value)


def test_version_8_serves_every_command(node8: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from r1searcher.retrieval import commands

    corpus = tmp_path / "c.jsonl"
    rows = [{"id": row.id, "title": row.title, "text": row.text} for row in passages(50)]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "q.jsonl").write_text(json.dumps({"question": "number3", "answer": "town"}) + "\n")
    url = node8.url("smoke")
    index_corpus(IndexRequest(source=str(corpus), to=url, options=IndexOptions(shards=2)))
    index_corpus(IndexRequest(source=str(corpus), to=str(tmp_path / "ix")))
    capsys.readouterr()
    for place in (url, str(tmp_path / "ix")):
        commands.search(place, "many number3 words", None, 4, True)
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
    assert json.loads(first)[0][0] == "p3"
    run_recall(RecallRequest(retrievers=[url], dataset=str(tmp_path / "q.jsonl"), as_json=True))
    assert json.loads(capsys.readouterr().out)["at"]["1"]["recall"] == 1.0
    with serving(url) as address:
        (found,) = post(f"{address}/retrieve", {"queries": ["number3"], "topk": 1, "return_scores": True})["result"]
    assert found[0]["document"]["id"] == "p3"


def test_a_client_newer_than_its_server_is_told_the_pin_that_mends_it(
    node8: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client of version 9 differs from 8's in what it asks for: `compatible-with=9`."""
    from elasticsearch._sync.client import _base

    asked = r"application/vnd.elasticsearch+\g<1>; compatible-with=9"
    monkeypatch.setattr(_base, "_COMPAT_MIMETYPE_SUB", asked)
    monkeypatch.setattr(client.elasticsearch, "__version__", (9, 5, 0))
    with pytest.raises(
        InputError, match=r"older than the installed client, 9.5.0: pip install 'elasticsearch>=8.19,<9'"
    ):
        load(passages(3), node8.url("newer"))
