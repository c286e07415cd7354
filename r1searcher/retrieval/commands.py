"""The commands `search` and `serve`; `index-corpus` is in `retrieval/indexing/command.py`."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path

from r1searcher.common.files import read_text, split_lines
from r1searcher.common.terminal import console, json_line, outside, silence_native_output
from r1searcher.errors import InputError
from r1searcher.retrieval.base import Health, Hit, SearchResult, Span, search_all
from r1searcher.retrieval.registry import open_retriever, settings_of

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


def serve(url: str, host: str, port: int, workers: int | None, allowed_hosts: Sequence[str]) -> None:
    """Serve a retriever over HTTP until interrupted, by default with one process per core."""
    from r1searcher.retrieval import processes

    out = console(stderr=True)
    place = processes.resolve(host, port)
    names = processes.allowed_names(place, list(allowed_hosts))
    silence_native_output()
    said = asyncio.run(_checked(url))
    out.print(f"{said.name}{'' if said.passages is None else f', {said.passages:,} passages'}.")
    if not place.is_loopback:
        out.print(f"There is no access control: anyone who can reach {host} can search.")
    processes.serve(
        processes.Service(url, place, names, said.fingerprint),
        workers or min(os.cpu_count() or 1, MOST_WORKERS),
        lambda address: out.print(f"{address}/retrieve, /queries and /access are ready."),
    )


async def _checked(url: str) -> Health:
    """The retriever's health, after all its checks."""
    async with aclosing(settings_of(url).open_checked()) as retriever:
        return await retriever.health()
