"""Clients that say nothing, half of something or never read; names, addresses and limits of the server."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError
from r1searcher.retrieval.connections import most_connections
from r1searcher.retrieval.engines.bm25 import EmbeddedIndex
from r1searcher.retrieval.indexing.bm25 import build
from r1searcher.retrieval.processes import LOOPBACK_NAMES, allowed_names, resolve
from tests.retrieval.serving import post, started, started_service

HALF_A_HEAD = b"POST /retrieve HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-"
HALF_A_BODY = b'POST /retrieve HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{"queries": ["ro'


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("connections") / "ix"
    build([Passage(str(n), "Rome", "Rome is the capital of Italy. " + "word " * 1_000) for n in range(1_000)], path)
    return path


def connect(address: str, sent: bytes = b"") -> socket.socket:
    parts = urlsplit(address)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=60)
    connection.sendall(sent)
    return connection


def ended(connection: socket.socket) -> bool:
    """Waits for the server to hang up, and says whether it did."""
    try:
        while connection.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


def hung_up_on(connection: socket.socket, sent: bytes, times: int, pause: float = 0) -> bool:
    """Whether the server disconnects before it has been sent that this many times."""
    try:
        for _ in range(times):
            connection.sendall(sent)
            time.sleep(pause)
    except ConnectionError:
        return True
    return False


def test_a_thousand_clients_are_answered_at_once(address: str) -> None:
    """None of them sends its request before all are connected."""
    most_connections()  # for this process, too
    body = b'{"queries": ["rome"], "topk": 1}'
    head = b"POST /retrieve HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(address)) for _ in range(1024)]
        for client in clients:
            client.sendall(head % len(body) + body)
        for client in clients:
            assert stack.enter_context(client.makefile("rb")).read().startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_ends_the_server_whatever_its_clients_do(index: Path, workers: str) -> None:
    """uvicorn alone waits for the rest of each request, and for each response to be read, forever."""
    large = json.dumps({"queries": ["rome"] * 100, "topk": 100}).encode()
    slow_reader = b"POST /retrieve HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(large), large)
    with started(str(index), "--workers", workers) as (process, address):
        clients = [connect(address, sent) for sent in (b"", HALF_A_HEAD, HALF_A_BODY, slow_reader) * 4]
        assert post(f"{address}/retrieve", {"queries": ["rome"], "topk": 1})["result"][0]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        for client in clients:
            client.close()


@pytest.mark.parametrize("sent", [b"", HALF_A_HEAD, HALF_A_BODY, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_silent_clients_are_dropped(index: Path, sent: bytes) -> None:
    hash_ = EmbeddedIndex(index).manifest.fingerprint
    with (
        started_service(str(index), hash_, limits=(0.5, 60.0, 60.0)) as (_, address),
        connect(address, sent) as client,
    ):
        assert ended(client)


def test_a_request_of_a_byte_now_and_then_is_dropped_too(index: Path) -> None:
    hash_ = EmbeddedIndex(index).manifest.fingerprint
    with started_service(str(index), hash_, limits=(60.0, 1.0, 60.0)) as (_, address), connect(address) as client:
        assert hung_up_on(client, b"x", 3_000, 0.02)


def test_a_client_that_does_not_read_is_dropped(index: Path) -> None:
    body = json.dumps({"queries": ["rome"] * 100, "topk": 100}).encode()
    hash_ = EmbeddedIndex(index).manifest.fingerprint
    with started_service(str(index), hash_, limits=(60.0, 60.0, 0.5)) as (_, address):
        head = b"POST /retrieve HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
        with connect(address, head + body) as client:
            time.sleep(10)
            received = b""
            try:
                while piece := client.recv(1 << 20):
                    received += piece
            except ConnectionError:
                pass
    answered, _, content = received.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", answered)
    assert length is not None
    assert len(content) < int(length[1]), "what had been sent before it was dropped"


def test_a_client_that_reads_slowly_gets_all_of_its_answer(index: Path) -> None:
    """Several times slower than the limit for reading nothing: it is not a limit for the whole."""
    body = json.dumps({"queries": ["rome"] * 100, "topk": 100}).encode()
    hash_ = EmbeddedIndex(index).manifest.fingerprint
    with started_service(str(index), hash_, limits=(60.0, 60.0, 2.0)) as (_, address):
        request = urllib.request.Request(f"{address}/retrieve", body)
        with urllib.request.urlopen(request, timeout=60) as answer:
            received = b""
            while piece := answer.read(4 << 20):
                received += piece
                time.sleep(0.5)
    assert len(json.loads(received)["result"]) == 100


def test_a_new_client_is_answered_beside_1_100_silent_ones(index: Path) -> None:
    """With the usual limit of 1,024 file descriptors, of which this process may have more."""
    limit = ["bash", "-c", 'ulimit -n 1024; exec "$@"', "bash"]
    with started(str(index), "--workers", "1", before=limit) as (_, address):
        clients = [connect(address) for _ in range(1_100)]
        for _ in range(3):
            assert post(f"{address}/retrieve", {"queries": ["rome"], "topk": 1})["result"][0]
        for client in clients:
            client.close()


@pytest.fixture(scope="module")
def address(index: Path) -> Iterator[str]:
    with started(str(index), "--workers", "1", "--allowed-host", "search.example.org") as (_, url):
        yield url


def status(address: str, host: str) -> tuple[int, str]:
    """Of a request with that `Host`."""
    with connect(
        address, f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("latin-1")
    ) as client:
        answer = b"".join(iter(lambda: client.recv(1 << 16), b"")).decode()
    return int(answer.split()[1]), answer.partition("\r\n\r\n")[2]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:8000",
        "localhost",
        "LocalHost:1",
        "localhost.",
        "[::1]",
        "[::1]:80",
        "search.example.org",
    ],
)
def test_a_loopback_server_answers_to_its_names(address: str, host: str) -> None:
    assert status(address, host)[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil",
        "",
        "[::1",
        "é",
    ],
)
def test_a_loopback_server_refuses_other_names(address: str, host: str) -> None:
    """A page of another site could have its name resolve to this machine (DNS rebinding)."""
    code, body = status(address, host)
    assert code == 421
    assert "--allowed-host" in json.loads(body)["detail"]


def test_a_head_without_end_is_cut_off(address: str) -> None:
    with connect(address, b"GET /health HTTP/1.1\r\nHost: localhost\r\n") as client:
        assert hung_up_on(client, b"X-Filler: " + b"x" * 8_000 + b"\r\n", 10_000)


def test_a_server_that_others_can_reach_says_so_and_answers_to_any_name(index: Path) -> None:
    assert allowed_names(resolve("0.0.0.0", 0), []) is None
    assert allowed_names(resolve("0.0.0.0", 0), ["a.example"]) == LOOPBACK_NAMES | {"0.0.0.0", "a.example"}
    assert allowed_names(resolve("localhost", 0), ["*"]) is None
    for name in ("http://a.example", "a.example/x", "", "a b", "a.example:80"):
        with pytest.raises(InputError, match="is not a host name"):
            allowed_names(resolve("127.0.0.1", 0), [name])
    command = [sys.executable, "-m", "r1searcher.cli", "serve", str(index), "--port", "0", "--host", "0.0.0.0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        while "are ready" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        assert "There is no access control" in said
        port = said.partition("http://0.0.0.0:")[2].partition("/")[0]
        assert status(f"http://127.0.0.1:{port}", "any.example")[0] == 200
        process.terminate()


def test_ipv6(index: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        assert allowed_names(resolve("127.0.0.1", 0), []) == LOOPBACK_NAMES  # no IPv6 on this machine
        return
    with started(str(index), "--workers", "1", "--host", "::1") as (_, address):
        assert address.startswith("http://[::1]:")
        assert post(f"{address}/retrieve", {"queries": ["rome"], "topk": 1})["result"][0]


@pytest.mark.parametrize("host", ["", "  ", "no such host", "192.0.2.1", "a\x00b", "x" * 300, "[", "1.2.3.4.5"])
def test_a_host_that_is_none_of_this_machine_is_a_sentence(host: str) -> None:
    with pytest.raises(InputError, match="--host"):
        resolve(host, 0)
