"""What the commands `index-corpus`, `search` and `serve` do."""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from functools import partial
from pathlib import Path

from rich.console import Console

from r1searcher.corpora.named import NAMED, cache_folder, fetch
from r1searcher.corpora.readers import Corpus
from r1searcher.errors import InputError
from r1searcher.retrieval.base import Health, Hit
from r1searcher.retrieval.manifest import IndexSettings, Manifest
from r1searcher.retrieval.urls import open_retriever

QUERIES_AT_ONCE = 64
MOST_WORKERS = 8
"""Processes of a server that is not told how many: a machine with a hundred cores has others to do."""

_INDEX_SHARE = 0.9
"""Bytes of an embedded index for a byte of text; twice that while its parts are merged."""
_PACKED = 3.5
"""Bytes of text for a byte of a compressed corpus."""


def index_corpus(
    source: str,
    to: str,
    settings: IndexSettings,
    *,
    format_: str | None = None,
    limit: int | None = None,
    overwrite: bool = False,
    restart: bool = False,
    rejects: Path | None = None,
    bad_rows: int = 100,
    shards: int = 1,
) -> None:
    """Read a corpus and index it where the URL says, with progress on standard error."""
    console = Console(stderr=True)
    folder = None if to.startswith(("es:", "es+https:")) else Path(to.removeprefix("file:"))
    fill = _filling(to, folder, settings, overwrite, restart, shards)
    if source in NAMED:
        format_ = format_ or NAMED[source].format
        source = _fetched(source, console)
    rejects = rejects or Path(f"{folder or to.rpartition('/')[2]}.rejects.jsonl")
    corpus = Corpus(source, format_, limit=limit, rejects=rejects, bad_allowed=bad_rows)
    if folder is not None:
        _say_disk(corpus, source, folder, console)
    with _progress(corpus, console) as on_progress:
        manifest = fill(corpus, on_progress=on_progress)
    _say_done(corpus, manifest, to, rejects, console)


def _filling(
    to: str, folder: Path | None, settings: IndexSettings, overwrite: bool, restart: bool, shards: int
) -> Callable[..., Manifest]:
    """What puts passages where they shall go. Raises `InputError` where they could not, before anything is fetched."""
    if folder is None:
        from r1searcher.retrieval import elastic

        elastic.check_target(to, overwrite)
        return partial(elastic.load, url=to, settings=settings, overwrite=overwrite, restart=restart, shards=shards)
    if "://" in to:
        raise InputError(f"{to} cannot be filled: give a folder, or es://host:9200/name.")
    from r1searcher.retrieval import embedded

    embedded.check_target(folder, settings, overwrite)
    return partial(embedded.build, path=folder, settings=settings, overwrite=overwrite, restart=restart)


def _fetched(name: str, console: Console) -> str:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    corpus = NAMED[name]
    console.print(f"{name}: {corpus.about}.")
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TextColumn("time left"), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("fetch", total=corpus.bytes_ or None)
        path = fetch(
            corpus,
            cache_folder(),
            lambda done, total: progress.update(task, completed=done, total=total or None),
        )
    console.print(f"It lies in {path}.")
    return str(path)


def _say_disk(corpus: Corpus, source: str, folder: Path, console: Console) -> None:
    size = corpus.total_bytes
    if size is None:
        return
    packed = source.endswith((".gz", ".bz2", ".zst", ".parquet")) or Path(source).is_dir()
    needed = size * (_PACKED if packed else 1) * _INDEX_SHARE
    there = next(parent for parent in folder.absolute().parents if parent.exists())
    free = shutil.disk_usage(there).free
    console.print(f"The index needs about {_gb(needed)} in {there}, twice that while it is made; {_gb(free)} are free.")
    if free < needed:
        raise InputError(f"{there} has too little room: free some, or choose another --to.")


def _gb(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"


@contextmanager
def _progress(corpus: Corpus, console: Console) -> Iterator[Callable[[int], None]]:
    """A bar over the bytes of the source, with passages, their rate and the time left."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        BarColumn(),
        TextColumn("{task.fields[passages]:,} passages, {task.fields[rate]:,.0f} a second, left"),
        TimeRemainingColumn(),
        TextColumn("so far"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("index", total=corpus.total_bytes, passages=0, rate=0.0)

        def on_progress(done: int) -> None:
            if done % 1000 == 0:
                elapsed = progress.tasks[0].elapsed or 1.0
                progress.update(task, completed=corpus.read_bytes, passages=done, rate=done / elapsed)

        yield on_progress


def _say_done(corpus: Corpus, manifest: Manifest, to: str, rejects: Path, console: Console) -> None:
    console.print(f"{to} holds {manifest.passages:,} passages.", highlight=False)
    if corpus.bad:
        rows = "1 row was" if corpus.bad == 1 else f"{corpus.bad:,} rows were"
        console.print(f"{rows} left out, with the reasons in {rejects}.", highlight=False)


def search(url: str, query: str | None, queries: Path | None, top_k: int, as_json: bool) -> None:
    """Print what queries find: passages to read, or a line a query `[[id, score], …]`."""
    if (query is None) == (queries is None):
        raise InputError('Give one query ("…") or a file of them, one a line (--queries FILE).')
    asked = [query] if query is not None else _lines(queries)

    async def run() -> None:
        async for text, hits in _searched(url, asked, top_k):
            if as_json:
                print(json.dumps([[hit.passage.id, round(hit.score, 4)] for hit in hits], ensure_ascii=False))
            else:
                _show(text if queries else None, hits)

    asyncio.run(run())


async def _searched(url: str, queries: Sequence[str], top_k: int) -> AsyncIterator[tuple[str, list[Hit]]]:
    async with aclosing(open_retriever(url)) as retriever:
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            asked = queries[start : start + QUERIES_AT_ONCE]
            for pair in zip(asked, await retriever.search(asked, top_k), strict=True):
                yield pair


def _lines(path: Path | None) -> list[str]:
    assert path is not None
    try:
        content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        return content.decode("utf-8-sig").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as queries, one a line: {error}") from error


def _show(query: str | None, hits: Sequence[Hit]) -> None:
    from rich.text import Text

    console = Console(highlight=False)
    if query is not None:
        console.print(Text(query, style="bold reverse"))
    for place, hit in enumerate(hits, 1):
        console.print(Text(f"{place}  {hit.passage.title}", style="bold"), Text(f"{hit.score:.3f}  {hit.passage.id}"))
        console.print(Text(hit.passage.text), "")
    if not hits:
        console.print("Nothing matches.", "")


def serve(url: str, host: str, port: int, workers: int | None) -> None:
    """Serve a retriever over HTTP until interrupted, by as many processes as there are cores unless told otherwise."""
    from r1searcher.retrieval import server

    console = Console(stderr=True, highlight=False)
    said = asyncio.run(_health(url))
    console.print(f"{said.name}, {said.passages:,} passages.")
    server.serve(
        url,
        host,
        port,
        workers=workers or min(os.cpu_count() or 1, MOST_WORKERS),
        on_start=lambda address: console.print(f"{address}/retrieve and {address}/queries answer now."),
    )


async def _health(url: str) -> Health:
    async with aclosing(open_retriever(url)) as retriever:
        return await retriever.health()
