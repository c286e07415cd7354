"""The HTTP client with real servers that send false, slow or too much data; and what is shown of URLs and keys."""

import asyncio
import base64
import gzip
import socket
import subprocess
import sys
import zlib
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from time import time
from typing import Any

import pytest

from r1searcher.common.http import Client, Key, Limits, retry_after, shown_url, split_url
from r1searcher.errors import InputError, RetrieverError, ServiceError
from tests.common.servers import Behavior, Raw, answer, raw_server, redirect

SECRET = "sk-4f9a-2b7c+d1e8/QzXw=="
KEY = Key("R1S_JUDGE_KEY", SECRET)
SMALL = Limits(total=60.0, size=1 << 20)


def ask(url: str, limits: Limits = SMALL, key: Key | None = None, **options: Any) -> Any:
    async def run() -> Any:
        client = Client(url, "the judge", key=key, limits=limits, **options)
        try:
            return await client.post(url, {"a": 1}, lambda value: value)
        finally:
            await client.aclose()

    return asyncio.run(run())


def failure(behave: Behavior, limits: Limits = SMALL, key: Key | None = None) -> ServiceError:
    with raw_server(behave) as server, pytest.raises(ServiceError) as raised:
        ask(f"{server.url}/v1/x", limits, key)
    return raised.value


def test_json_goes_out_and_comes_in_with_the_key() -> None:
    with raw_server(answer(b'{"b": [1.5, "\xc3\xa9"]}')) as server:
        assert ask(f"{server.url}/v1/x", key=KEY) == {"b": [1.5, "é"]}
    (request,) = server.requests
    assert request.startswith(b"POST /v1/x HTTP/1.1\r\n")
    assert f"Authorization: Bearer {SECRET}".encode() in request
    assert request.endswith(b'{"a": 1}')


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
@pytest.mark.parametrize("key", [KEY, None])
def test_a_redirect_is_an_error_that_names_only_the_host(status: int, key: Key | None) -> None:
    with raw_server(answer(b"{}"), host="127.0.0.2") as other:
        error = failure(redirect(status, f"{other.url}/hidden/path?token=abc"), key=key)
    assert other.requests == []
    assert "redirects to 127.0.0.2, and redirects are not followed" in str(error)
    assert "hidden" not in str(error)
    assert "token" not in str(error)
    assert not error.transient


def endless(connection: socket.socket, request: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while True:
        connection.sendall(b" " * (1 << 16))


def endless_chunks(connection: socket.socket, request: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"1000\r\n" + b" " * 0x1000 + b"\r\n")


def gzip_bomb(connection: socket.socket, request: bytes) -> None:
    """A gigabyte of spaces in a megabyte."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n")
    pack = zlib.compressobj(9, zlib.DEFLATED, 31)
    spaces = b" " * (1 << 20)
    for _ in range(1024):
        connection.sendall(pack.compress(spaces))
    connection.sendall(pack.flush())


def endless_error(connection: socket.socket, request: bytes) -> None:
    connection.sendall(b"HTTP/1.1 400 Bad\r\nConnection: close\r\n\r\nno! ")
    while True:
        connection.sendall(b" " * (1 << 16))


@pytest.mark.parametrize("behave", [endless, endless_chunks, gzip_bomb])
def test_an_answer_without_end_is_broken_off(behave: Behavior) -> None:
    error = failure(behave)
    assert "sent more than 1,048,576 bytes in one response" in str(error)
    assert not error.transient


def test_a_gzip_bomb_takes_little_memory() -> None:
    """In its own process, to measure its peak."""
    program = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from tests.common.test_http import ask, failure, gzip_bomb, answer, raw_server
with raw_server(answer(b"{}")) as server:
    ask(server.url + "/v1/x")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
failure(gzip_bomb)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", program, root], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 50_000, "kilobytes"


def test_an_error_without_end_is_cut() -> None:
    error = failure(endless_error)
    assert "answered with status 400: no!" in str(error)
    assert len(str(error)) < 500


def drip_body(server: Raw) -> Behavior:
    def behave(connection: socket.socket, request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not server.stop.wait(0.05):
            connection.sendall(b" ")

    return behave


def drip_head(server: Raw) -> Behavior:
    def behave(connection: socket.socket, request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while not server.stop.wait(0.05):
            connection.sendall(b"x")

    return behave


def silent(server: Raw) -> Behavior:
    return lambda connection, request: server.stop.wait() and None


@pytest.mark.parametrize("make", [drip_body, drip_head, silent])
def test_the_whole_request_has_a_time_limit(make: Callable[[Raw], Behavior]) -> None:
    """Bytes keep arriving, well within any limit between two of them."""
    with raw_server(answer(b"")) as server:
        server.behave = make(server)
        with pytest.raises(ServiceError, match="did not finish its answer within 1 s") as raised:
            ask(f"{server.url}/x", Limits(total=1.0))
    assert raised.value.transient


@pytest.mark.parametrize(
    ("status", "transient"),
    [
        *((status, False) for status in (400, 401, 403, 404, 413, 422)),
        *((status, True) for status in (408, 429, 500, 502, 503, 504)),
    ],
)
def test_which_statuses_may_pass(status: int, transient: bool) -> None:
    error = failure(answer(b"why", f"{status} X", "Retry-After: 7"))
    assert (error.transient, error.retry_after) == (transient, 7.0)
    assert f"answered with status {status}: why" in str(error)


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after({"Retry-After": "120"}) == 120.0
    in_a_minute = retry_after({"Retry-After": formatdate(time() + 60, usegmt=True)})
    assert in_a_minute is not None
    assert 0 < in_a_minute <= 60
    assert retry_after({"Retry-After": formatdate(0, usegmt=True)}) == 0.0
    for wrong in ("", "-1", "nan", "1e999", "soon", "9" * 400):
        assert retry_after({"Retry-After": wrong}) is None


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<html>", "not JSON"),
        (b"", "not JSON"),
        (b'{"score": NaN}', "NaN is not a JSON number"),
        (b"[Infinity]", "Infinity is not a JSON number"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" + b"9" * 5000 + b"]", "a number is too long"),
        (b"\xff\xfe", "not"),
    ],
)
def test_what_is_not_json_is_permanent(body: bytes, why: str) -> None:
    error = failure(answer(body))
    assert "sent a response that does not follow its protocol" in str(error)
    assert why in str(error)
    assert not error.transient


def test_gzip_is_read_even_where_it_was_not_asked_for() -> None:
    with raw_server(answer(gzip.compress(b'{"a": 1}'), "200 OK", "Content-Encoding: gzip")) as server:
        assert ask(server.url) == {"a": 1}
    assert "not valid gzip" in str(failure(answer(b"{}", "200 OK", "Content-Encoding: gzip")))
    assert "not requested" in str(failure(answer(b"{}", "200 OK", "Content-Encoding: br")))


@pytest.mark.parametrize(
    ("behave", "why", "transient"),
    [
        (lambda c, r: None, "disconnected", True),
        (lambda c, r: c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"), "peer closed", True),
        (lambda c, r: c.sendall(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "does not speak HTTP", False),
    ],
)
def test_a_lost_connection_may_pass_and_another_protocol_not(behave: Behavior, why: str, transient: bool) -> None:
    error = failure(behave)
    assert why in str(error)
    assert error.transient is transient


def test_nobody_there() -> None:
    with pytest.raises(
        RetrieverError, match=r"the judge http://127.0.0.1:9/x does not answer \(connection refused\)"
    ) as e:
        ask("http://127.0.0.1:9/x", error=RetrieverError)
    assert e.value.transient
    with pytest.raises(ServiceError, match=r"does not answer \(.*name.*\)"):
        ask("http://nowhere.invalid/x")
    with raw_server(answer(b"{}")) as server, pytest.raises(ServiceError, match="does not speak HTTPS") as plain:
        ask(server.url.replace("http:", "https:"))
    assert not plain.value.transient


def echoes(secret: str) -> list[bytes]:
    encoded = base64.b64encode(secret.encode())
    return [
        secret.encode(),
        b'{"error": "Incorrect API key provided: ' + secret.encode() + b'"}',
        b"x" * 250 + secret.encode(),  # cut in the middle by the length limit for display
        b"half of it: " + secret[:12].encode() + b"...",
        b"percent: sk-4f9a-2b7c%2Bd1e8%2FQzXw%3D%3D",
        b"base64: " + encoded,
        (secret * 5000).encode(),  # cut by the length limit for reading
    ]


@pytest.mark.parametrize("body", echoes(SECRET))
@pytest.mark.parametrize("status", ["401 Unauthorized", "500 Oh"])
def test_a_key_that_is_echoed_is_not_shown(body: bytes, status: str) -> None:
    error = failure(answer(body, status), key=KEY)
    for start in range(len(SECRET) - 7):
        assert SECRET[start : start + 8] not in f"{error} {error!r}"
    assert base64.b64encode(SECRET.encode()).decode()[:12] not in str(error)
    if status.startswith("401"):
        assert "[R1S_JUDGE_KEY]" in str(error)


@pytest.mark.parametrize("value", ["sk-1\n", "sk-1\r\nX-Evil: 1", "clé-secrète", "a b", "\x00", "sk-\u2028", "\x7f"])
def test_a_key_that_no_header_can_carry_is_refused_without_printing_it(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="R1S_JUDGE_KEY cannot be sent") as raised:
        Key("R1S_JUDGE_KEY", value)
    assert value.strip() not in str(raised.value)
    if "\x00" not in value:
        monkeypatch.setenv("R1S_JUDGE_KEY", value)
        with pytest.raises(InputError, match="R1S_JUDGE_KEY cannot be sent"):
            Key.from_environment("R1S_JUDGE_KEY", "OPENAI_API_KEY")


def test_a_key_is_not_in_what_is_shown_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client("http://127.0.0.1:9/", "the judge", key=KEY)
    assert SECRET not in f"{KEY!r} {KEY} {client!r} {[KEY]}"
    monkeypatch.delenv("R1S_JUDGE_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    assert Key.from_environment("R1S_JUDGE_KEY", "OPENAI_API_KEY") == Key("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("OPENAI_API_KEY", "")
    assert Key.from_environment("R1S_JUDGE_KEY", "OPENAI_API_KEY") is None


def test_a_client_asks_its_own_host_only() -> None:
    async def run() -> None:
        client = Client("http://127.0.0.1:9/v1", "the judge", key=KEY)
        for url in ("http://127.0.0.2:9/v1", "http://127.0.0.1:10/v1", "https://127.0.0.1:9/v1"):
            with pytest.raises(ValueError, match="another host"):
                await client.send("GET", url)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host:8000/retrieve", "http://host:8000/retrieve"),
        ("http://me:secret@host:8000/retrieve", "http://host:8000/retrieve"),
        ("http://secret@host/v1", "http://host/v1"),
        ("http://me:s@cret@host/v1", "http://host/v1"),
        ("http://me:se/cret@host/v1", "http://host/v1"),
        ("http://me:secret@host:port/v1", "http://host:port/v1"),
        ("http://me:secret@[::1/v1", "http://[::1/v1"),
        ("http://me:secret\uff20host/v1", "http://host/v1"),
        ("es://me:secret@host/index", "es://host/index"),
        ("HTTP:\\\\me:secret@host\\x", "HTTP:\\\\host\\x"),
        ("me:secret@host:9200/index", "host:9200/index"),
        ("http://h/a?token=secret&k=secret", "http://h/a?token=…&k=…"),
        ("http://h/a?secret", "http://h/a?…"),
        ("http://h/a#secret", "http://h/a"),
        ("http://h/@scope/a@1", "http://h/@scope/a@1"),
        ("http://h/\x1b[2J\x9b\n", "http://h/␛[2J\\x9b␊"),
        ("index/wiki@2018", "index/wiki@2018"),
        ("file:a:b@c/wiki", "file:a:b@c/wiki"),
        ("", ""),
        ("http://" + "h" * 1000, "http://" + "h" * 293 + "…"),
    ],
)
def test_what_is_shown_of_a_url(url: str, shown: str) -> None:
    assert shown_url(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        *("", "host", "http://", "http:///x", "ftp://host/x", "http://host:port/", "http://host:99999/", "http://h:0/"),
        *("http://host:-1/", "http://[::1/", "http://[zz]/", "http://::1/", "http://ho st/", "http://host/a b"),
        *("http://host/\x00", "http://h\n/", "http://\u202ehost/", "http://a..b/", f"http://{'a' * 64}.com/"),
        *("http://h%00/", "http://h\u2100/"),
    ],
)
def test_a_malformed_url_is_one_sentence(url: str) -> None:
    with pytest.raises(InputError) as raised:
        Client(url, "the judge")
    assert "the judge's URL" in str(raised.value)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("url", ["http://me:geheim@host/", "https://geheim@host:8/x", "http://:geheim@[::1]/"])
def test_user_and_password_in_a_url_are_refused(url: str) -> None:
    with pytest.raises(InputError, match="leave user and password out of the URL; set R1S_X") as raised:
        split_url(url, "the URL", "set R1S_X")
    assert "geheim" not in str(raised.value)


def test_an_address_of_this_machine_is_asked_directly_and_others_by_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with raw_server(answer(b'"direct"')) as server, raw_server(answer(b'"proxy"')) as proxy:
        for name in ("NO_PROXY", "no_proxy", "http_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        assert ask(server.url) == "direct"
        assert ask(server.url.replace("127.0.0.1", "localhost")) == "direct"
        assert ask("http://search.invalid/x") == "proxy"
        for wrong in ("gopher://geheim:geheim@x", "socks9://geheim"):
            monkeypatch.setenv("http_proxy", wrong)
            with pytest.raises(InputError, match="the proxy that HTTP_PROXY") as raised:
                ask("http://search.invalid/x")
            assert "geheim" not in str(raised.value)


def test_the_import_of_httpx_waits_until_it_is_needed() -> None:
    code = "import sys, r1searcher.common.http, r1searcher.common.retry; print('httpx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
