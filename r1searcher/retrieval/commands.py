"""The commands `search` and `serve`; `index-corpus` is in `retrieval/indexing/command.py`."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from r1searcher.common.files import read_text, split_lines
from r1searcher.common.terminal import SafeConsole, console, json_line, outside, silence_native_output
from r1searcher.errors import InputError
from r1searcher.retrieval.base import Health, Hit, SearchResult, Span, search_all
from r1searcher.retrieval.registry import open_retriever, settings_of

if TYPE_CHECKING:
    from r1searcher.retrieval.processes import MakeApp

QUERIES_AT_ONCE = 64
MOST_WORKERS = 8
"""Default limit of server processes: a machine with a hundred cores has other work."""


def search(url: str, query: str | None, queries: Path | None, top_k: int, as_json: bool, explain: bool = False) -> None:
    """Print the hits of queries: passages, or a line per query `[[id, score], …]`. `explain` adds what each part of the
    retriever took."""
    if (query is None) == (queries is None):
        raise InputError('Give one query ("…") or a file of them, one per line (--queries FILE).')
    asked = [query] if query is not None else _lines(queries)
    silence_native_output()

    async def run() -> None:
        async for text, result in _searched(url, asked, top_k):
            hits = result.require_hits()
            if as_json:
                ranked = [[hit.passage.id, round(hit.score, 4)] for hit in hits]
                json_line({"hits": ranked, "spans": [asdict(span) for span in result.spans]} if explain else ranked)
                continue
            _show(text if queries else None, hits)
            if explain:
                _explain(result.spans)

    asyncio.run(run())


async def _searched(url: str, queries: Sequence[str], top_k: int) -> AsyncIterator[tuple[str, SearchResult]]:
    async with aclosing(open_retriever(url)) as retriever:
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            asked = queries[start : start + QUERIES_AT_ONCE]
            for pair in zip(asked, await search_all(retriever, asked, top_k), strict=True):
                yield pair


def _lines(path: Path | None) -> list[str]:
    assert path is not None
    if str(path) != "-":
        return split_lines(read_text(path, "the file of queries"))
    try:
        return split_lines(sys.stdin.buffer.read().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"standard input is not UTF-8 text (byte {error.start + 1})") from error


def _show(query: str | None, hits: Sequence[Hit]) -> None:
    out = console()
    if query is not None:
        out.print(outside(query, "bold reverse"))
    for place, hit in enumerate(hits, 1):
        out.print(outside(f"{place}  {hit.passage.title}", "bold"), outside(f"{hit.score:.3f}  {hit.passage.id}"))
        out.print(outside(hit.passage.text), "")
    if not hits:
        out.print("No passage matches.", "")


def _explain(spans: Sequence[Span]) -> None:
    """What each part of the retriever took, in the order in which they finished."""
    from rich.table import Table

    table = Table("part", "ms", "cost, $", "", box=None, padding=(0, 1))
    table.columns[1].justify = table.columns[2].justify = "right"
    for span in spans:
        cached = "from the recording" if span.cached else ""
        table.add_row(outside(span.link), f"{1000 * span.seconds:,.1f}", f"{span.cost_usd:.4f}", cached)
    console().print(table, "")


@dataclass(frozen=True, kw_only=True)
class Listening:
    """Where and how a server listens; `workers` None is one process per core."""

    host: str = "127.0.0.1"
    port: int = 8000
    allowed_hosts: Sequence[str] = ()
    workers: int | None = None


def serve(url: str, listening: Listening) -> None:
    """Serve a retriever over HTTP until interrupted."""
    from r1searcher.retrieval.server import make_app

    workers = listening.workers or min(os.cpu_count() or 1, MOST_WORKERS)
    _serve(url, listening, make_app, workers, "/retrieve, /queries and /access are ready.")


def serve_mcp(url: str, listening: Listening) -> None:
    """Serve a retriever as an MCP server over HTTP until interrupted, in one process: it remembers passages."""
    if listening.workers is not None:
        raise InputError("--mcp http runs one process: omit --workers")
    _serve(url, listening, _mcp_server().make_app, 1, "/mcp is ready.")


def serve_mcp_stdio(url: str, listening: Listening) -> None:
    """Serve a retriever as an MCP server on standard input and output, until the client closes them."""
    if listening != Listening():
        raise InputError("--mcp stdio does not listen on a port: omit --host, --port, --workers and --allowed-host")
    mcp_server = _mcp_server()
    with mcp_server.standard_streams() as streams:
        silence_native_output()
        said = _say(asyncio.run(_checked(url)), console(stderr=True))
        asyncio.run(mcp_server.serve_stdio(settings_of(url).open_in_server(said.fingerprint), streams))


def _mcp_server() -> ModuleType:
    try:
        from r1searcher.retrieval import mcp_server
    except ImportError as error:
        raise InputError("--mcp needs the package mcp 2: pip install 'r1searcher[mcp]'") from error
    return mcp_server


def _serve(url: str, listening: Listening, app: "MakeApp", workers: int, ready: str) -> None:
    from r1searcher.retrieval import processes

    out = console(stderr=True)
    place = processes.resolve(listening.host, listening.port)
    names = processes.allowed_names(place, list(listening.allowed_hosts))
    silence_native_output()
    said = _say(asyncio.run(_checked(url)), out)
    if not place.is_loopback:
        out.print(f"There is no access control: anyone who can reach {listening.host} can search.")
    service = processes.Service(url, place, names, said.fingerprint, app=app)
    processes.serve(service, workers, lambda address: out.print(f"{address}{ready}"))


def _say(said: Health, out: SafeConsole) -> Health:
    out.print(f"{said.name}{'' if said.passages is None else f', {said.passages:,} passages'}.")
    return said


async def _checked(url: str) -> Health:
    """The retriever's health, after all its checks."""
    async with aclosing(settings_of(url).open_checked()) as retriever:
        return await retriever.health()
