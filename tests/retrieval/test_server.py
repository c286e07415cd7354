"""`r1s serve` in a separate process, as clients of other projects use it, and a remote server as a retriever."""

import asyncio
import json
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from r1searcher.common.http import Client
from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError, RetrieverError
from r1searcher.retrieval import open_retriever
from r1searcher.retrieval.base import Health, Hit, SearchResult
from r1searcher.retrieval.engines import http
from r1searcher.retrieval.engines.bm25 import EmbeddedIndex
from r1searcher.retrieval.indexing.bm25 import build
from r1searcher.retrieval.processes import resolve
from r1searcher.retrieval.server import make_app
from tests.retrieval.serving import post, search, started, started_service, workers

ATLAS = [
    Passage("a", "Oslo", "Oslo is the capital of Norway."),
    Passage("b", 'The "cold" city', "Bergen lies in Norway,\nand Norway is cold."),
    Passage("c", "Rome", "Rome is the capital of Italy."),
]


ROME = {"id": "c", "contents": '"Rome"\nRome is the capital of Italy.', "url": "passage:c/Rome"}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("serve") / "ix"
    build(ATLAS, path)
    return path


def refused(url: str, body: object) -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as raised:
        post(url, body)
    detail = json.load(raised.value)["detail"]
    return raised.value.code, detail


def test_search_r1_with_scores(address: str, index: Path) -> None:
    found = post(f"{address}/retrieve", {"queries": ["rome", "norway"], "topk": 1, "return_scores": True})
    score = EmbeddedIndex(index).search_one("rome", 1)[0].score
    assert found["result"][0] == [{"document": ROME, "score": pytest.approx(score)}]
    assert [len(hits) for hits in found["result"]] == [1, 1]


def test_search_r1_without_scores(address: str) -> None:
    found = post(f"{address}/retrieve", {"queries": ["rome"], "topk": None})
    assert found == {"result": [[ROME]]}
    assert post(f"{address}/retrieve", {"queries": ["nothing matches"]}) == {"result": [[]]}
    assert post(f"{address}/retrieve", {"queries": []}) == {"result": []}


def test_r1_searcher(address: str) -> None:
    found = post(f"{address}/queries", {"queries": ["rome", "capital"], "k": 2})
    assert found["queries"] == ["rome", "capital"]
    assert found["answers"][0] == [f"{zlib.crc32(b'c')}\tTitle: Rome Text: Rome is the capital of Italy."]
    assert len(found["answers"][1]) == 2


async def test_searches_that_wait_for_a_request_are_sent_together(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[list[str]] = []
    post_one = Client.post

    async def post_counted(self: Client, url: str, body: Any, read: Any) -> Any:
        sent.append(body["queries"])
        return await post_one(self, url, body, read)

    monkeypatch.setattr(Client, "post", post_counted)
    async with aclosing(open_retriever(http.Settings(url=f"{address}/retrieve", connections=2))) as retriever:
        found = await asyncio.gather(*(retriever.search([query], 1) for query in ["rome", "bergen"] * 100))
    assert [result.require_hits()[0].passage.id for [result] in found] == ["c", "b"] * 100
    assert sum(map(len, sent)) == 200
    assert len(sent) == 4, "at most 64 queries per request"


def test_health(address: str, index: Path) -> None:
    with urllib.request.urlopen(f"{address}/health", timeout=60) as answer:
        said = json.load(answer)
    assert said == {"name": str(index), "passages": 3, "fingerprint": EmbeddedIndex(index).manifest.fingerprint}


@pytest.mark.parametrize(
    ("path", "body", "status", "why"),
    [
        ("retrieve", b"{", 400, "not JSON"),
        ("retrieve", b"[" * 100_000, 400, "nested too deeply"),
        ("retrieve", b"\xff\xfe\xfd", 400, "not UTF-8"),
        ("retrieve", b'{"queries": ["x"], "topk": %s}' % (b"9" * 5_000), 400, "a number is too long"),
        ("retrieve", b'{"queries": ["x"], "topk": NaN}', 400, "NaN is not a JSON number"),
        ("retrieve", [1], 422, "must be an object"),
        ("retrieve", {}, 422, "`queries`: field required"),
        ("queries", {"queries": "rome"}, 422, "`queries`: input should be a valid list"),
        ("queries", {"queries": [1]}, 422, "`queries.0`: input should be a valid string"),
        ("retrieve", {"query": 1}, 422, "`queries.0`: input should be a valid string"),
        ("retrieve", {"query": {"query": {}}}, 422, "`queries.0`"),
        ("retrieve", {"queries": ["x"] * 1_000, "topk": 1_000}, 413, "more than 100,000 passages in one request"),
        ("retrieve", {"queries": ["x"] * 100_001, "topk": 1}, 413, "100,001 queries with 1 passages each"),
        ("retrieve", {"queries": ["x"], "topk": 10**9}, 422, "`topk`: input should be less than or equal to 1000"),
        ("retrieve", {"queries": ["x"], "topk": -1}, 422, "`topk`: input should be greater than or equal to 1"),
        ("retrieve", {"queries": ["x"], "topk": "many"}, 422, "`topk`"),
        ("queries", {"queries": ["x"], "k": 2.5}, 422, "`k`: input should be a valid integer"),
        ("retrieve", {"queries": ["x"], "return_scores": "perhaps"}, 422, "`return_scores`"),
        ("access", {"urls": "x"}, 422, "`urls`: input should be a valid list"),
        ("access", {"urls": ["x"] * 101}, 422, "`urls`: list should have at most 100 items"),
        ("access", {"urls": ["\ud800"]}, 422, "`urls.0`"),
        ("nowhere", {}, 404, "POST /retrieve, /queries or /access"),
        ("health", {}, 405, "/health accepts GET requests only"),
    ],
)
def test_a_wrong_request_gets_a_4xx_and_a_sentence(
    address: str, path: str, body: object, status: int, why: str
) -> None:
    code, detail = refused(f"{address}/{path}", body)
    assert code == status
    assert why in detail


def test_a_body_without_end_is_refused(address: str) -> None:
    try:
        code, detail = refused(f"{address}/retrieve", b"x" * (17 << 20))
    except (ConnectionError, urllib.error.URLError):  # hung up on while still sending
        return
    assert (code, detail) == (413, "The request is larger than 16 MB.")


def test_a_hostile_query_is_answered(address: str) -> None:
    body = b'{"queries": ["\\ud800 rome \\u0000 \\"(", "a:b AND ["]}'
    assert [[hit["id"] for hit in hits] for hits in post(f"{address}/retrieve", body)["result"]] == [["c"], []]
    assert post(f"{address}/queries", body)["queries"] == ['? rome \x00 "(', "a:b AND ["]


def test_64_clients_at_once_get_their_own_answers(address: str) -> None:
    wrong: list[object] = []

    def client(number: int) -> None:
        id_, query = [("a", "oslo"), ("b", "bergen"), ("c", "rome")][number % 3]
        for top_k in (1, 2, 3):
            found = post(f"{address}/retrieve", {"queries": [query] * (1 + number % 4), "topk": top_k})["result"]
            if [[hit["id"] for hit in hits] for hits in found] != [[id_]] * (1 + number % 4):
                wrong.append((query, top_k, found))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def as_sent(passage: Passage, path: str) -> Passage:
    """R1-Searcher's protocol has one line per passage, and numbers as ids."""
    if path == "retrieve":
        return passage
    return Passage(str(zlib.crc32(passage.id.encode())), passage.title, passage.text.replace("\n", " "))


@pytest.mark.parametrize("path", ["retrieve", "queries"])
def test_a_remote_server_is_a_retriever(address: str, index: Path, path: str) -> None:
    queries = ["rome", "", "norway", "nothing matches", "\ud800 oslo", "bergen " * 20_000]
    ours = [EmbeddedIndex(index).search_one(query, 2) for query in queries]
    theirs = search(f"{address}/{path}", queries, 2)
    expected = [[as_sent(hit.passage, path) for hit in hits] for hits in ours]
    assert [[hit.passage for hit in hits] for hits in theirs] == expected
    if path == "retrieve":
        assert [[hit.score for hit in hits] for hits in theirs] == [[hit.score for hit in hits] for hits in ours]


def test_the_health_of_a_remote_server(address: str, index: Path) -> None:
    async def run() -> None:
        remote, local = open_retriever(f"{address}/retrieve"), EmbeddedIndex(index)
        theirs, ours = await remote.health(), await local.health()
        assert (theirs.passages, theirs.fingerprint) == (ours.passages, ours.fingerprint)
        await remote.aclose()

    asyncio.run(run())


class _Server(ThreadingHTTPServer):
    answer: tuple[int, bytes] = (200, b"")


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.server.answer[0])
        self.end_headers()
        self.wfile.write(self.server.answer[1])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def broken_server() -> Iterator[_Server]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize(
    ("path", "status", "body", "why"),
    [
        ("retrieve", 500, b"boom", "status 500: boom"),
        ("retrieve", 200, b"<html>", "not JSON"),
        ("retrieve", 200, b"{}", "result: Field required"),
        ("retrieve", 200, b'{"result": [[], []]}', "result: 2 lists for 1 queries"),
        ("retrieve", 200, b'{"result": [[1]]}', "result.0.0: Input should be a valid dictionary"),
        ("retrieve", 200, b'{"result": [[{"document": {"id": "1"}, "score": 1}]]}', "a passage is unreadable"),
        ("retrieve", 200, b'{"result": [[{"document": {"contents": "x"}, "score": "high"}]]}', "valid number"),
        ("queries", 200, b'{"answers": [["no tab"]]}', "a passage is unreadable"),
        ("queries", 200, b'{"answers": [[""]]}', "a passage is unreadable"),
        ("queries", 200, b'{"answers": null}', "answers: Input should be a valid list"),
    ],
)
def test_a_server_that_answers_wrongly_is_an_error_and_never_an_empty_answer(
    broken_server: _Server, path: str, status: int, body: bytes, why: str
) -> None:
    broken_server.answer = (status, body)
    with pytest.raises(RetrieverError, match=why.replace("(", r"\(")):
        search(f"http://127.0.0.1:{broken_server.server_address[1]}/{path}", ["rome"])


def test_documents_of_search_r1s_own_server_are_understood(broken_server: _Server) -> None:
    """Its documents carry `contents`, or `title` and `text`; without an id the position is used."""
    rows = [
        {"document": {"id": 5, "contents": '"Rome"\nA city.'}, "score": 2},
        {"document": {"title": "Oslo", "text": "A town."}, "score": 1.5},
    ]
    broken_server.answer = (200, json.dumps({"result": [rows]}).encode())
    url = f"http://127.0.0.1:{broken_server.server_address[1]}/retrieve"
    assert search(url, ["x"])[0] == [
        Hit(Passage("5", "Rome", "A city."), 2.0),
        Hit(Passage(f"{url}#2", "Oslo", "A town."), 1.5),
    ]


def test_unreachable_wrong_path_and_port_in_use_are_one_sentence_each(index: Path) -> None:
    with pytest.raises(RetrieverError, match=r"http://127.0.0.1:9/retrieve does not answer \(.*refused\)"):
        search("http://127.0.0.1:9/retrieve", ["x"])
    with pytest.raises(InputError, match="ends in /retrieve or /queries"):
        open_retriever("http://127.0.0.1:9/search")
    with pytest.raises(InputError, match="is not a retriever"):
        open_retriever("ftp://127.0.0.1/x")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"Port {port} of 127.0.0.1 cannot be used"):
            resolve("127.0.0.1", port)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_the_one_that_was_started(index: Path, end: signal.Signals) -> None:
    with started(str(index), "--workers", "2") as (process, address):
        assert [hit["id"] for hit in post(f"{address}/retrieve", {"queries": ["rome"]})["result"][0]] == ["c"]
        process.send_signal(end)
        port = int(address.rpartition(":")[2])
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
            except ConnectionError:
                break
            time.sleep(0.1)
        else:
            pytest.fail("something still listens")


def test_a_process_that_dies_is_replaced(index: Path) -> None:
    with started(str(index), "--workers", "2") as (process, address):
        running = workers(process.pid)
        assert len(running) == 2
        for pid in running:
            os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while True:
            try:
                assert post(f"{address}/retrieve", {"queries": ["rome"]})["result"][0][0]["id"] == "c"
                break
            except (urllib.error.URLError, ConnectionError):
                assert time.monotonic() < deadline
                time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.wait(30)


def test_a_lost_engine_is_a_503_with_its_sentence() -> None:
    """Started in a process of its own, since `r1s serve` does not start where no engine answers."""
    with started_service("http://127.0.0.1:9/retrieve") as (_, address):
        code, detail = refused(f"{address}/retrieve", {"queries": ["x"]})
        assert code == 503
        assert "http://127.0.0.1:9/retrieve does not answer" in detail
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"{address}/health", timeout=60)


class Refuses:
    """Answers every query but "refused" and "busy"."""

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        errors = {"refused": RetrieverError("no such word"), "busy": RetrieverError("try later", transient=True)}
        found = SearchResult((Hit(ATLAS[0], 1.0),))
        return [SearchResult(error=errors[query]) if query in errors else found for query in queries]

    async def health(self) -> Health:
        return Health("refuses")

    async def aclose(self) -> None: ...


@pytest.mark.parametrize(("query", "status", "why"), [("refused", 422, "no such word"), ("busy", 503, "try later")])
@pytest.mark.parametrize("path", ["retrieve", "queries"])
async def test_a_query_that_fails_is_an_error_of_its_request_alone(
    path: str, query: str, status: int, why: str
) -> None:
    transport = httpx.ASGITransport(make_app(Refuses()))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        one, both = await asyncio.gather(
            client.post(f"/{path}", json={"queries": ["good"]}),
            client.post(f"/{path}", json={"queries": ["good", query]}),
        )
        said = (await client.get("/health")).json()
    assert one.status_code == 200
    assert both.status_code == status
    assert list(both.json()) == ["detail"]
    assert why in both.json()["detail"]
    assert said == {"name": "refuses", "passages": None, "fingerprint": ""}
