"""A retrieval server that is hostile, broken or of another kind. Its good answers: tests/retrieval/test_server.py."""

import asyncio
import json
import socket

import pytest

from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError, R1Error, RetrieverError
from r1searcher.retrieval import open_retriever
from r1searcher.retrieval.base import Health, Hit
from r1searcher.retrieval.engines import http
from tests.common.servers import Behavior, answer, raw_server
from tests.common.test_http import endless, endless_chunks, gzip_bomb
from tests.retrieval.serving import search

DOCUMENT = {"id": "1", "contents": '"Rome"\nA city.'}


def hits(answer_: object, path: str = "retrieve", top_k: int = 5) -> list[Hit]:
    body = answer_ if isinstance(answer_, bytes) else json.dumps(answer_).encode()
    with raw_server(answer(body)) as server:
        return search(f"{server.url}/{path}", ["rome"], top_k)[0]


def health(behave: Behavior) -> Health:
    with raw_server(behave) as server:

        async def run() -> Health:
            retriever = open_retriever(f"{server.url}/retrieve")
            try:
                return await retriever.health()
            finally:
                await retriever.aclose()

        return asyncio.run(run())


@pytest.mark.parametrize("behave", [endless, endless_chunks, gzip_bomb])
def test_an_answer_without_end_is_an_error(behave: Behavior, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_MAX_ANSWER_BYTES", 1 << 20)
    with raw_server(behave) as server, pytest.raises(RetrieverError, match="sent more than") as raised:
        search(f"{server.url}/retrieve", ["rome"])
    assert not raised.value.transient


def test_one_byte_at_a_time_is_an_error() -> None:

    def drip(connection: socket.socket, request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not server.stop.wait(0.05):
            connection.sendall(b" ")

    with raw_server(drip) as server:
        settings = http.Settings(url=f"{server.url}/retrieve", timeout_s=1.0)
        with pytest.raises(RetrieverError, match="did not finish its answer") as raised:
            asyncio.run(open_retriever(settings).search(["rome"], 1))
    assert raised.value.transient


@pytest.mark.parametrize(
    "score", ["NaN", "Infinity", "-Infinity", "1e999", '"high"', "true", "[]", "{}", '"1.5"', "9" * 400]
)
def test_a_score_that_is_not_a_finite_number_is_an_error(score: str) -> None:
    body = f'{{"result": [[{{"document": {json.dumps(DOCUMENT)}, "score": {score}}}]]}}'.encode()
    with pytest.raises(RetrieverError, match="sent a response that does not follow its protocol") as raised:
        hits(body)
    assert not raised.value.transient


def test_scores_are_optional() -> None:
    expected = [Hit(Passage("1", "Rome", "A city."), 1.0), Hit(Passage("1", "Rome", "A city."), 0.5)]
    assert hits({"result": [[DOCUMENT, DOCUMENT]]}) == expected
    assert hits({"result": [[{"document": DOCUMENT}, {"document": DOCUMENT, "score": None}]]}) == expected
    assert (
        hits({"result": [[{"document": DOCUMENT, "score": 7}] * 9]}, top_k=2)
        == [Hit(Passage("1", "Rome", "A city."), 7.0)] * 2
    )


def test_half_a_character_in_a_passage_does_not_end_a_run() -> None:
    (hit,) = hits({"result": [[{"id": "1", "title": "R\ud800", "text": "x\udc00y"}]]})
    assert hit.passage == Passage("1", "R?", "x?y")
    (hit,) = hits({"answers": [["1\tTitle: R\ud800 Text: x\n\udc00y"]]}, "queries")
    assert hit.passage == Passage("1", "R?", "x ?y")


WRONG = [
    None,
    True,
    7,
    "x",
    [],
    [[]],
    {},
    {"result": None},
    {"result": 3},
    {"result": {}},
    {"result": {"0": []}},
    {"result": [None]},
    {"result": [{}]},
    {"result": ["x"]},
    {"result": [[None]]},
    {"result": [[3]]},
    {"result": [["x"]]},
    {"result": [[[]]]},
    {"result": [[{}]]},
    {"result": [[{"document": None}]]},
    {"result": [[{"document": "x"}]]},
    {"result": [[{"document": []}]]},
    {"result": [[{"document": {"id": None, "contents": "x"}}]]},
    {"result": [[{"document": {"id": {}, "contents": "x"}}]]},
    {"result": [[{"document": {"contents": 3}}]]},
    {"result": [[{"document": {"title": [], "text": "x"}}]]},
    {"result": [[{"document": {"title": "x", "text": {}}}]]},
    {"result": []},
    {"result": [[], []]},
    {"detail": "no"},
    {"answers": [[1]]},
    {"answers": [[None]]},
    {"answers": [[["x"]]]},
    {"answers": [["no tab"]]},
    {"answers": [[""]]},
    {"answers": "x"},
    {"answers": []},
]


@pytest.mark.parametrize("path", ["retrieve", "queries"])
@pytest.mark.parametrize("value", WRONG, ids=lambda value: json.dumps(value)[:40])
def test_an_answer_of_another_shape_is_one_sentence(value: object, path: str) -> None:
    with pytest.raises(RetrieverError) as raised:
        hits(value, path)
    assert "sent a response that does not follow its protocol: " in str(raised.value)
    assert str(raised.value).isprintable()
    assert not raised.value.transient


@pytest.mark.parametrize(
    "value",
    [
        *({"passages": value} for value in ("many", -1, 1.5, True, [], {}, 10**30)),
        *({"passages": 1, "fingerprint": value} for value in (1, [], {}, True, "x" * 1000, "\x1b[2J")),
    ],
    ids=str,
)
def test_a_health_of_another_shape_is_one_sentence(value: object) -> None:
    with pytest.raises(RetrieverError, match="sent a response that does not follow its protocol: "):
        health(answer(json.dumps(value).encode()))


@pytest.mark.parametrize("said", [b'{"status": "ok"}', b'"ok"', b"OK", b"[]", b"", b'{"passages": null}'])
def test_the_health_of_other_servers_says_nothing_and_a_search_decides(said: bytes) -> None:
    def behave(connection: socket.socket, request: bytes) -> None:
        answer(said if request.startswith(b"GET") else b'{"result": [[]]}')(connection, request)

    assert health(behave).passages is None
    with pytest.raises(RetrieverError):
        health(answer(said))


@pytest.mark.parametrize("status", ["404 Not Found", "405 Method Not Allowed"])
def test_a_server_without_health(status: str) -> None:
    def behave(connection: socket.socket, request: bytes) -> None:
        answer(*((b"", status) if request.startswith(b"GET") else (b'{"result": [[]]}',)))(connection, request)

    assert (health(behave).passages, health(behave).fingerprint) == (None, "")


@pytest.mark.parametrize(("status", "transient"), [(400, False), (404, False), (422, False), (429, True), (503, True)])
def test_which_errors_may_pass(status: int, transient: bool) -> None:
    with raw_server(answer(b"{}", f"{status} X")) as server, pytest.raises(RetrieverError) as raised:
        search(f"{server.url}/retrieve", ["rome"])
    assert raised.value.transient is transient


@pytest.mark.parametrize(
    "url",
    [
        *("http://me:geheim@h/retrieve", "http://h:port/retrieve", "http://[::1/retrieve", "http:///retrieve"),
        *("http://h/re\x00trieve", "http://h /retrieve", "http://h/search?key=geheim", "x://h/x", "es://me:geheim@h/x"),
    ],
)
def test_a_wrong_url_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(InputError) as raised:
        open_retriever(url)
    assert "geheim@" not in str(raised.value)
    assert "=geheim" not in str(raised.value)


def test_the_query_of_a_url_is_sent_and_not_shown() -> None:
    with raw_server(answer(b'{"result": [[]]}')) as server:
        url = f"{server.url}/retrieve?token=geheim"
        assert search(url, ["rome"]) == [[]]
        server.behave = answer(b"no", "403 No")
        with pytest.raises(R1Error) as raised:
            search(url, ["rome"])
    assert all(b"token=geheim" in request for request in server.requests)
    assert "geheim" not in str(raised.value)
