"""The commands `index-corpus`, `index push` and `index pull`."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from r1searcher.common import terminal
from r1searcher.common.files import cause_of
from r1searcher.common.terminal import SafeConsole, label
from r1searcher.corpora.fetch import cache_folder, fetch
from r1searcher.corpora.named import CORPORA
from r1searcher.corpora.readers import Corpus
from r1searcher.errors import FileError, InputError
from r1searcher.retrieval.indexing.base import Indexed, Indexer, IndexOptions, open_indexer
from r1searcher.retrieval.indexing.received import OnProgress
from r1searcher.retrieval.indexing.transfer import pull, push

_INDEX_SHARE = 0.9
"""Bytes of an embedded index per byte of text; twice that while its parts are merged."""
_PACKED = 3.5
"""Bytes of text per byte of a compressed corpus."""


@dataclass(frozen=True, kw_only=True)
class IndexRequest:
    """A request of `r1s index-corpus`.

    `source` is a file, a folder, "-" or the name of a corpus, `to` a retriever URL. `format_` None detects the format;
    `rejects` None is `TO.rejects.jsonl`; `bad_rows` is the maximum number of rejected rows; `limit` the number of first
    passages to use.
    """

    source: str
    to: str
    options: IndexOptions = field(default_factory=IndexOptions)
    format_: str | None = None
    limit: int | None = None
    rejects: Path | None = None
    bad_rows: int = 100


def index_corpus(request: IndexRequest) -> None:
    """Read a corpus and index it at the URL, with progress on standard error."""
    console = terminal.console(stderr=True)
    indexer = _checked_indexer(request.to, request.options)
    source, format_ = request.source, request.format_
    if source in CORPORA:
        format_ = format_ or CORPORA[source].format or None
        source = fetched(source, console)
    rejects = request.rejects or Path(f"{indexer.folder or request.to.rpartition('/')[2]}.rejects.jsonl")
    _refuse_overlap(source, indexer.folder, rejects)
    corpus = Corpus(source, format_, limit=request.limit, rejects=rejects, bad_allowed=request.bad_rows)
    if (dense := request.options.dense) is not None:
        console.print(f"{dense.encoder.summary}.")
    elif indexer.folder is not None:
        _say_disk(corpus, source, indexer.folder, console)
    with _progress(corpus, console) as on_progress:
        manifest = indexer.index(corpus, on_progress)
    _say_done(corpus, manifest, request.to, rejects, console)


def push_index(folder: Path, target: str, overwrite: bool) -> None:
    """Copy an index to a folder, an archive or the hub, with progress on standard error."""
    _transfer(lambda on_progress: push(folder, target, overwrite, on_progress), target)


def pull_index(source: str, folder: Path, overwrite: bool) -> None:
    """Copy an index from a folder, an archive or the hub, with progress on standard error."""
    _transfer(lambda on_progress: pull(source, folder, overwrite, on_progress), str(folder))


def _transfer(work: Callable[[OnProgress], None], target: str) -> None:
    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

    console = terminal.console(stderr=True)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), label("time left"), TimeRemainingColumn())
    with terminal.progress(*columns, console=console) as progress:
        task = progress.add_task("copy", total=None)
        work(lambda done, total: progress.update(task, completed=done, total=total))
    console.print(f"{target} contains the index.")


def _checked_indexer(to: str, options: IndexOptions) -> Indexer:
    """The indexer for the target. Raises `InputError` if it cannot be used, before any download."""
    if "\0" in to:
        raise InputError(
            "--to contains a NUL character: give a folder, es://host:9200/name or opensearch://host:9200/name."
        )
    try:
        urlsplit(to)
    except ValueError as error:
        raise InputError(
            f"{to} is not a URL ({error}): give a folder, es://host:9200/name or opensearch://host:9200/name."
        ) from None
    indexer = open_indexer(to, options)
    indexer.check()
    return indexer


def _refuse_overlap(source: str, folder: Path | None, rejects: Path) -> None:
    """Raises `InputError` if the output would be inside the input, or replace it."""
    if source == "-" or source in CORPORA or not source:
        return
    try:
        read = Path(source).resolve()
        if folder is not None and read.is_dir() and read in folder.absolute().parents:
            raise InputError(f"--to {folder} is inside the corpus folder {source}: choose a folder elsewhere.")
        if rejects.exists() and read.exists() and rejects.samefile(read):
            raise InputError(f"--rejects {rejects} is the corpus itself: name another file.")
    except (OSError, ValueError, RuntimeError):
        return  # opening them reports errors in the names


def fetched(name: str, console: SafeConsole) -> str:
    """The file of a named corpus, downloaded if necessary, with progress. Raises `InputError`."""
    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

    corpus = CORPORA[name]
    console.print(f"{name}: {corpus.about}.")
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), label("time left"), TimeRemainingColumn())
    with terminal.progress(*columns, console=console) as progress:
        task = progress.add_task("fetch", total=corpus.bytes_ or None)
        path = fetch(
            corpus,
            cache_folder(),
            lambda done, total: progress.update(task, completed=done, total=total or None),
        )
    console.print(f"It is in {path}.")
    return str(path)


def _say_disk(corpus: Corpus, source: str, folder: Path, console: SafeConsole) -> None:
    size = corpus.total_bytes
    if size is None:
        return
    packed = source.endswith((".gz", ".bz2", ".zst", ".parquet")) or Path(source).is_dir()
    needed = size * (_PACKED if packed else 1) * _INDEX_SHARE
    there = next(parent for parent in folder.absolute().parents if parent.exists())
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        raise FileError(f"{there} cannot be read: {cause_of(error)}") from error
    console.print(f"The index needs about {_gb(needed)} in {there}, twice that during the build; {_gb(free)} are free.")
    if free < needed:
        raise InputError(f"{there} does not have enough space: free some, or choose another --to.")


def _gb(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"


@contextmanager
def _progress(corpus: Corpus, console: SafeConsole) -> Iterator[Callable[[int], None]]:
    """A progress bar over the bytes of the source, with passages, their rate and the remaining time."""
    from rich.progress import BarColumn, SpinnerColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        BarColumn(),
        label("{task.fields[passages]:,} passages, {task.fields[rate]:,.0f} per second, left"),
        TimeRemainingColumn(),
        label("so far"),
        TimeElapsedColumn(),
    )
    with terminal.progress(*columns, console=console) as progress:
        task = progress.add_task("index", total=corpus.total_bytes, passages=0, rate=0.0)

        def on_progress(done: int) -> None:
            if done % 1000 == 0:
                elapsed = progress.tasks[0].elapsed or 1.0
                progress.update(task, completed=corpus.read_bytes, passages=done, rate=done / elapsed)

        yield on_progress


def _say_done(corpus: Corpus, manifest: Indexed, to: str, rejects: Path, console: SafeConsole) -> None:
    console.print(f"{to} contains {manifest.passages:,} passages.")
    if corpus.repeated:
        console.print(f"{corpus.repeated:,} duplicate paragraphs of several questions were skipped.")
    if corpus.bad:
        rows = "1 row was" if corpus.bad == 1 else f"{corpus.bad:,} rows were"
        console.print(f"{rows} rejected, with the reasons in {rejects}.")
