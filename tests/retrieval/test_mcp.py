"""`r1s serve --mcp` in a separate process, as the official client of the protocol uses it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from r1searcher.corpora.passage import Passage
from r1searcher.errors import RetrieverError
from r1searcher.retrieval.base import Health, Hit, SearchResult
from r1searcher.retrieval.indexing.bm25 import build
from tests.retrieval.serving import started, workers

mcp = pytest.importorskip("mcp")

from mcp import Client, StdioServerParameters  # noqa: E402

from r1searcher.retrieval import mcp_server  # noqa: E402

BELL = "Norway\x07's \x1b[2Jold\u202e capital.\nIts second line."
ATLAS = [
    Passage("a", "Oslo", "Oslo is the capital of Norway."),
    Passage("b", "Bergen", BELL),
    Passage("c", "Rome", "Rome is the capital of Italy."),
    Passage("c", "Rome again", "A second passage with the id of the first."),
    Passage("https://example.org/å?x=1", "Å", "A village in Lofoten."),
]
MODES = ["legacy", "auto"]
"""The handshake of the protocol until 2025-11-25, and the protocol without one of 2026-07-28."""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mcp") / "ix"
    build(ATLAS, path)
    return path


def stdio(retriever: str) -> StdioServerParameters:
    command = ["-m", "r1searcher.cli", "serve", retriever, "--mcp", "stdio"]
    return StdioServerParameters(command=sys.executable, args=command, env=dict(os.environ))


@pytest.fixture(scope="module")
def address(index: Path) -> Iterator[str]:
    options = ["--mcp", "http", "--allowed-host", "Mcp.Example"]
    with started(str(index), *options, ready="/mcp is ready") as (process, url):
        assert len(workers(process.pid)) == 1
        yield url


@pytest.fixture(params=["stdio", "http"])
def server(request: pytest.FixtureRequest, index: Path) -> Any:
    """What the client connects to: a command that it starts, or a URL."""
    return stdio(str(index)) if request.param == "stdio" else f"{request.getfixturevalue('address')}/mcp"


def connected(server: Any, mode: str = "legacy") -> Any:
    return Client(server, mode=mode, read_timeout_seconds=60)


def sentence(result: Any) -> str:
    """The only content of a result that is an error."""
    assert result.is_error
    assert result.structured_content is None
    [content] = result.content
    return str(content.text)


@pytest.mark.parametrize("mode", MODES)
async def test_the_official_client_lists_and_calls_both_tools(server: Any, mode: str) -> None:
    async with connected(server, mode) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert list(tools) == ["search", "open"]
        assert tools["search"].input_schema["required"] == ["query"]
        assert tools["search"].input_schema["properties"]["top_k"]["maximum"] == 100
        assert tools["open"].input_schema["required"] == ["id"]

        found = await client.call_tool("search", {"query": "capital of Norway", "top_k": 2})  # checks the output schema
        assert not found.is_error
        first, second = found.structured_content["passages"]
        assert (first["id"], first["title"], first["text"]) == ("a", "Oslo", "Oslo is the capital of Norway.")
        assert first["score"] > second["score"] > 0
        assert second["text"] == BELL, "data is unchanged"
        assert found.content[0].text.startswith("1. Oslo (id: a, score: ")
        assert "Norway␇'s ␛[2Jold\\u202e capital.\nIts second line." in found.content[0].text

        opened = await client.call_tool("open", {"id": "b"})
        assert opened.structured_content == {"id": "b", "title": "Bergen", "text": BELL}
        assert "\x1b" not in opened.content[0].text
        opened = await client.call_tool("open", {"id": "https://example.org/å?x=1"})
        assert opened.structured_content["text"] == "A village in Lofoten."
        opened = await client.call_tool("open", {"id": "c"})
        assert opened.structured_content["title"] == "Rome", "of two the first in the corpus"

        nothing = await client.call_tool("search", {"query": "zyx"})
        assert (nothing.is_error, nothing.structured_content) == (False, {"passages": []})
        assert nothing.content[0].text == "No passage matches."


WRONG = [
    ("search", {}, "search: query: field required"),
    ("search", {"query": 7}, "search: query: must be a valid string"),
    ("search", {"query": " \t"}, "search: query: must not be empty"),
    ("search", {"query": "x", "top_k": "many"}, "search: top_k: must be a valid integer"),
    ("search", {"query": "x", "top_k": True}, "search: top_k: must be a valid integer"),
    ("search", {"query": "x", "top_k": 0}, "search: top_k: must be greater than or equal to 1"),
    ("search", {"query": "x", "top_k": 101}, "search: top_k: must be less than or equal to 100"),
    ("search", {"query": "x", "top_n": 1}, "search: top_n: extra inputs are not permitted"),
    ("open", {"id": None}, "open: id: must be a valid string"),
    ("open", {"id": "x" * 10_001}, "open: id: string should have at most 10000 characters"),
    ("open", {"id": "nowhere\x1b[2J"}, "open failed: no passage has the id 'nowhere\\x1b[2J'"),
    ("delete", {}, "there is no tool 'delete': use search or open"),
]


async def test_wrong_calls_are_errors_of_the_tool_in_one_sentence(server: Any) -> None:
    async with connected(server) as client:
        for tool, arguments, why in WRONG:
            assert sentence(await client.call_tool(tool, arguments)) == why
        assert not (await client.call_tool("search", {"query": "x" * 100_000})).is_error, "cut, as everywhere"


async def test_a_failed_search_is_never_an_empty_result(index: Path) -> None:
    with started(str(index)) as (server, url):
        async with connected(stdio(f"{url}/retrieve")) as client:
            found = await client.call_tool("search", {"query": "rome"})
            assert found.structured_content["passages"][0]["id"] == "c"
            server.terminate()
            server.wait(60)
            why = sentence(await client.call_tool("search", {"query": "rome"}))
            assert why.startswith("search failed: ")
            assert "does not answer" in why

            # This engine has no lookup: what was found is remembered, and nothing else.
            opened = await client.call_tool("open", {"id": "c"})
            assert opened.structured_content["title"]
            why = sentence(await client.call_tool("open", {"id": "a"}))
            assert why.startswith("open failed: no passage has the id 'a' among those that this server found lately")


async def test_a_damaged_index_fails_every_tool_until_it_is_restored(tmp_path: Path) -> None:
    build(ATLAS, tmp_path / "ix")
    async with connected(stdio(str(tmp_path / "ix"))) as client:
        file = next((tmp_path / "ix/tantivy").glob("*.store"))
        content, times = file.read_bytes(), file.stat()
        file.write_bytes(content + b"x")
        for tool, arguments in (("search", {"query": "rome"}), ("open", {"id": "c"})):
            assert "damaged" in sentence(await client.call_tool(tool, arguments))
        file.write_bytes(content)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        await asyncio.sleep(0.5)  # it is opened again at most five times a second
        assert not (await client.call_tool("open", {"id": "c"})).is_error


def test_stdio_has_nothing_but_the_protocol_on_standard_output(index: Path) -> None:
    request = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
    }
    lines = [json.dumps(request), "not JSON", '{"jsonrpc": "2.0", "id": 2, "method": "nonsense"}', "[" * 100_000]
    server = stdio(str(index))
    done = subprocess.run(
        [server.command, *server.args], input="\n".join(lines) + "\n", capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert {answer["jsonrpc"] for answer in answers} == {"2.0"}
    assert answers[0]["result"]["serverInfo"]["name"] == "r1searcher"
    assert f"{index}, 5 passages." in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_stdio(index: Path) -> None:
    server = stdio(str(index))
    with subprocess.Popen(
        [server.command, *server.args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        assert b"passages" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == -signal.SIGINT


LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}


def posted(address: str, body: Any = LIST, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    accept = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
    return httpx.post(f"{address}/mcp", content=content, headers={**accept, **headers}, timeout=60)


@pytest.mark.parametrize("version", ["2025-06-18", "2026-07-28"])
def test_foreign_hosts_and_origins_are_refused(address: str, version: str) -> None:
    def status(**headers: str) -> int:
        return posted(address, **{"MCP-Protocol-Version": version}, **headers).status_code

    allowed = status()
    assert allowed in (200, 400), "the newer protocol wants more fields"
    for host in ("localhost:1", "127.0.0.1", "[::1]:8000", "mcp.example", "MCP.example.:443"):
        assert status(Host=host) == allowed
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "mcp.example.evil"):
        assert status(Host=host) == 421
    for origin in ("http://localhost:3000", "https://mcp.example"):
        assert status(Origin=origin) == allowed
    for origin in ("http://evil.example", "null", "http://localhost@evil.example", "localhost", "file://"):
        assert status(Origin=origin) == 403


def test_http_refuses_what_is_not_the_protocol(address: str) -> None:
    assert posted(address, **{"Content-Type": "text/plain"}).status_code == 400, "a page's form could send it"
    assert posted(address, b" " * (1 << 20) + b"{}").status_code == 413
    for body in (b"{", b"[" * 100_000, b"\xff", b"[]", b'{"id": %s}' % (b"9" * 5000)):
        answer = posted(address, body)
        assert (answer.status_code, answer.json()["jsonrpc"]) == (400, "2.0")
    assert httpx.get(f"{address}/mcp", timeout=60).status_code == 405
    assert httpx.post(f"{address}/retrieve", json={"queries": ["x"]}, timeout=60).status_code == 404
    assert posted(address).status_code == 200, "it still answers"


def r1s(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "r1searcher.cli", *words], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--mcp", "stdio", "--port", "1"], "--mcp stdio does not listen on a port"),
        (["--mcp", "http", "--workers", "2"], "--mcp http runs one process: omit --workers"),
        (["--mcp", "sse"], "'sse' is not one of 'stdio', 'http'"),
    ],
)
def test_options_that_do_not_fit(options: list[str], why: str, index: Path) -> None:
    done = r1s("serve", str(index), *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert why in " ".join(done.stderr.split())


def test_a_missing_index_is_one_sentence(tmp_path: Path) -> None:
    done = r1s("serve", str(tmp_path / "none"), "--mcp", "stdio")
    assert (done.returncode, done.stdout) == (2, "")
    assert "There is no index" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_missing_package_is_named(index: Path) -> None:
    program = "import sys; sys.modules['mcp'] = None; from r1searcher.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "serve", str(index), "--mcp", "stdio"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'r1searcher[mcp]'" in done.stderr


class Odd:
    """A retriever without lookup, whose passages are odd, or which fails."""

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        if queries == ["bug"]:
            raise ZeroDivisionError("secret")
        if queries == ["down"]:
            return [SearchResult(error=RetrieverError("down\x1b[2J"))]
        hits = [Hit(Passage("x\ud800", "half \udc00", "best"), 2.0), Hit(Passage("x\ud800", "", "worse"), 1.0)]
        return [SearchResult(tuple(hits[:top_k]))]

    async def health(self) -> Health:
        return Health("odd")

    async def aclose(self) -> None: ...


async def test_odd_passages_and_bugs() -> None:
    async with Client(mcp_server.make_server(Odd())) as client:
        found = await client.call_tool("search", {"query": "x"})
        assert [row["id"] for row in found.structured_content["passages"]] == ["x?", "x?"]
        opened = await client.call_tool("open", {"id": "x?"})
        assert opened.structured_content["text"] == "best", "of several with one id the best"
        assert sentence(await client.call_tool("search", {"query": "down"})) == "search failed: down␛[2J"
        said = sentence(await client.call_tool("search", {"query": "bug"}))
        assert said == "search failed: this is a bug in the server, see its terminal"


def test_only_the_last_passages_are_remembered() -> None:
    known = mcp_server.Remembered(most=3, most_chars=10)
    known.add(Passage(id_, "", "") for id_ in "abc")
    assert known.get("c") is not None  # used: the others go first
    known.add([Passage("d", "", "")])
    assert [id_ for id_ in "abcd" if known.get(id_)] == ["a", "c", "d"], "c and b were less good hits than a"
    known.add([Passage("e", "", "12345678")])
    assert [id_ for id_ in "abcde" if known.get(id_)] == ["d", "e"]
    known.add([Passage("f", "", "x" * 100)])
    assert not any(map(known.get, "abcdef"))


def test_the_help_does_not_import_the_sdk() -> None:
    program = (
        "import sys; from r1searcher import cli; import r1searcher.retrieval.commands; "
        "print([m for m in sys.modules if m.split('.')[0] in ('mcp', 'mcp_types')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n"
