"""What the commands `index-corpus` and `search` do."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from r1searcher.errors import InputError
from r1searcher.retrieval.base import Hit
from r1searcher.retrieval.urls import open_retriever

QUERIES_AT_ONCE = 64


def index_corpus(source: Path, to: str, *, overwrite: bool, restart: bool) -> None:
    """Read a corpus file and index it where the URL says."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from r1searcher.corpora.readers import read_passages
    from r1searcher.retrieval.embedded import build

    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} passages"), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("index")
        manifest = build(
            read_passages(source),
            Path(to.removeprefix("file:")),
            overwrite=overwrite,
            restart=restart,
            on_progress=lambda done: progress.update(task, completed=done) if done % 1000 == 0 else None,
        )
    console.print(f"{to} holds {manifest.passages:,} passages.")


def search(url: str, query: str | None, queries: Path | None, top_k: int, as_json: bool) -> None:
    """Print what queries find: passages to read, or a line a query `[[id, score], …]`."""
    if (query is None) == (queries is None):
        raise InputError('Give one query ("…") or a file of them, one a line (--queries FILE).')
    asked = [query] if query is not None else _lines(queries)

    async def run() -> None:
        async for text, hits in _searched(url, asked, top_k):
            if as_json:
                print(json.dumps([[hit.passage.id, hit.score] for hit in hits], ensure_ascii=False))
            else:
                _show(text if queries else None, hits)

    asyncio.run(run())


async def _searched(url: str, queries: Sequence[str], top_k: int) -> AsyncIterator[tuple[str, list[Hit]]]:
    retriever = open_retriever(url)
    try:
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            asked = queries[start : start + QUERIES_AT_ONCE]
            for pair in zip(asked, await retriever.search(asked, top_k), strict=True):
                yield pair
    finally:
        await retriever.aclose()


def _lines(path: Path | None) -> list[str]:
    if str(path) == "-":
        return sys.stdin.read().splitlines()
    assert path is not None
    try:
        return path.read_text(encoding="utf-8").split("\n")[:-1]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as queries, one a line: {error}") from error


def _show(query: str | None, hits: Sequence[Hit]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    if query is not None:
        console.print(Text(query, style="bold reverse"))
    for place, hit in enumerate(hits, 1):
        console.print(Text(f"{place}  {hit.passage.title}", style="bold"), Text(f"{hit.score:.3f}  {hit.passage.id}"))
        console.print(Text(hit.passage.text), "")
    if not hits:
        console.print("Nothing matches.", "")
