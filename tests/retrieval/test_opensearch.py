"""What is particular about OpenSearch: its client, its keys, and the answers of its security plugin.

Filling and searching, on a real server: tests/retrieval/test_elasticsearch.py and test_foreign_server.py.
"""

import base64
import json
import logging
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError, R1Error, RetrieverError
from r1searcher.retrieval import open_retriever
from r1searcher.retrieval.indexing.base import IndexOptions
from r1searcher.retrieval.indexing.elasticsearch import load
from tests.common.servers import answer, raw_server, redirect
from tests.retrieval.serving import search

ROOT = {
    "name": "node-1",
    "cluster_name": "os",
    "version": {"distribution": "opensearch", "number": "3.1.0", "lucene_version": "10.2.1"},
    "tagline": "The OpenSearch Project: https://opensearch.org/",
}
PASSWORD = "geheim-12345678"


def say(body: Any, status: str = "200 OK", kind: str = "application/json") -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return answer(content, status, f"Content-Type: {kind}; charset=UTF-8")


@pytest.fixture(autouse=True)
def client(request: pytest.FixtureRequest) -> None:
    if request.function is not test_a_missing_client_is_named:
        pytest.importorskip("opensearchpy", reason="needs the extra [opensearch]")


def url_of(server: Any) -> str:
    return str(server.url).replace("http:", "opensearch:") + "/ix"


def test_a_missing_client_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opensearchpy", None)
    with pytest.raises(InputError, match=r"opensearch:// needs opensearch-py: pip install 'r1searcher\[opensearch\]'"):
        open_retriever("opensearch://h/x")


def test_elasticsearchs_client_refuses_it_and_the_error_names_the_other_scheme() -> None:
    with (
        raw_server(say(ROOT)) as server,
        pytest.raises(InputError, match=r"is not Elasticsearch: .* write opensearch://"),
    ):
        load([Passage("1", "T", "x")], url_of(server).replace("opensearch:", "es:"))


def test_user_and_password_go_to_the_server_and_into_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("R1S_OPENSEARCH_USER", "me")
    monkeypatch.setenv("R1S_OPENSEARCH_PASSWORD", PASSWORD)
    logging.getLogger().handlers.clear()
    denied = say(f"Unauthorized {PASSWORD}".encode(), "401 Unauthorized", "text/plain")
    with raw_server(denied) as server:
        for ask in (lambda: search(url_of(server), ["q"]), lambda: load([Passage("1", "T", "x")], url_of(server))):
            with pytest.raises(
                InputError, match=r"refuses access .*set R1S_OPENSEARCH_USER and R1S_OPENSEARCH_PASS"
            ) as said:
                ask()
            assert PASSWORD not in str(said.value)
    sent = base64.b64encode(f"me:{PASSWORD}".encode())
    assert server.requests
    assert all(
        b"authorization: basic " + sent in request.replace(b"Basic", b"basic").replace(b"Auth", b"auth")
        for request in server.requests
    )
    assert capsys.readouterr().err == "", "the client's own log stays silent"


@pytest.mark.parametrize("name", ["R1S_OPENSEARCH_USER", "R1S_OPENSEARCH_PASSWORD"])
def test_a_key_that_cannot_be_sent_is_refused_up_front(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R1S_OPENSEARCH_USER", "me")
    monkeypatch.setenv(name, "geheim\r\nX: 1")
    with pytest.raises(InputError, match="cannot be sent") as raised:
        open_retriever("opensearch://h/x")
    assert "geheim" not in str(raised.value)


def test_a_missing_permission_is_said_in_the_servers_words() -> None:
    reason = "no permissions for [indices:admin/get] and User [name=me, backend_roles=[]]"
    error = {"type": "security_exception", "reason": reason}
    body = {"error": {"root_cause": [error], **error}, "status": 403}
    with raw_server(say(body, "403 Forbidden")) as server, pytest.raises(InputError, match="refuses access") as raised:
        search(url_of(server) + "?fields=title", ["q"])
    assert "no permissions for [indices:admin/get]" in str(raised.value)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_request_follows_a_redirect(status: int) -> None:
    with raw_server(say(ROOT), host="127.0.0.2") as second, raw_server(say(ROOT)) as first:
        first.behave = redirect(status, f"{second.url}/ix")
        with pytest.raises(RetrieverError, match="redirects, and redirects are not followed"):
            search(url_of(first), ["q"])
    assert second.requests == []
    assert len(first.requests) == 1


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"<html>", b"\xff"])
@pytest.mark.parametrize("kind", ["application/json", "text/html", "text/plain"])
def test_an_answer_that_is_not_json_is_one_sentence(body: bytes, kind: str) -> None:
    for ask in (search, lambda url, _: load([Passage("1", "T", "x")], url)):
        with raw_server(say(body, kind=kind)) as server, pytest.raises(R1Error) as raised:
            ask(url_of(server), ["q"])
        assert str(raised.value).isprintable()


def test_certificates_that_cannot_be_used_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("R1S_OPENSEARCH_CA", str(tmp_path / "none.pem"))
    for url in ("opensearch+https://h/x", "opensearch://h/x"):
        with pytest.raises(InputError, match=r"R1S_OPENSEARCH_CA cannot be used: .*opensearch\+https:// URL"):
            open_retriever(url)
    (tmp_path / "none.pem").write_text("no certificate")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(R1Error) as raised:
            search(f"opensearch+https://{address}/x", ["q"])
    assert str(raised.value).isprintable()


def test_what_is_sent_to_fill_an_index_is_what_opensearch_documents() -> None:
    """Answers in the forms of OpenSearch's API reference. The real behavior: tests/retrieval/test_elasticsearch.py."""
    made: list[tuple[str, str]] = []

    def behave(connection: socket.socket, request: bytes) -> None:
        method, path = request.split(b" ", 2)[:2]
        place = path.decode().partition("?")[0]
        made.append((method.decode(), place))
        missing = {"type": "index_not_found_exception", "reason": "no such index [ix]"}
        answers: dict[tuple[str, str], Any] = {
            ("GET", "/"): ROOT,
            ("GET", "/ix-*"): {},
            ("GET", "/ix-000001/_stats/docs"): {"_shards": {"total": 1, "successful": 1, "failed": 0}},
            ("POST", "/ix-000001/_bulk"): {"errors": False, "items": [{"create": {"status": 201}}]},
            ("POST", "/ix-000001/_refresh"): {"_shards": {"total": 1, "successful": 1, "failed": 0}},
            ("GET", "/ix-000001/_count"): {"count": 1, "_shards": {"total": 1, "failed": 0}},
        }
        if (method, place) == (b"GET", "/ix"):
            body = {"error": {"root_cause": [missing], **missing}, "status": 404}
            say(body, "404 Not Found")(connection, request)
        else:
            say(answers.get((method.decode(), place), {"acknowledged": True}))(connection, request)

    with raw_server(behave) as server:
        manifest = load([Passage("1", "T", "x")], url_of(server), IndexOptions())
    assert manifest.passages == 1
    assert made == [
        ("GET", "/"),
        ("GET", "/ix"),
        ("GET", "/ix-*"),
        ("GET", "/ix-*"),
        ("PUT", "/ix-000001"),
        ("GET", "/ix-000001/_stats/docs"),
        ("POST", "/ix-000001/_bulk"),
        ("POST", "/ix-000001/_refresh"),
        ("GET", "/ix-000001/_count"),
        ("PUT", "/ix-000001/_settings"),
        ("PUT", "/ix-000001/_mapping"),
        ("GET", "/ix-*"),
        ("POST", "/_aliases"),
    ]
