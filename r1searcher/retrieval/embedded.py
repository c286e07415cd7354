"""A BM25 index in a folder of this machine, on tantivy; it ranks and scores as Lucene does.

    DIR/manifest.json   written last: a folder without it is no index
    DIR/checksums.json  sizes, modification times and SHA-256 of the other files
    DIR/tantivy/        terms (made by our analyzer, joined by blanks), corpus order, the stored passages

An index is built in the sibling folder `DIR.building` and renamed when it is whole. Passages are committed as they
come, so the same build started again goes on behind the last commit.
"""

import asyncio
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import tantivy

from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError, RetrieverError
from r1searcher.retrieval.analyzer import Analyzer
from r1searcher.retrieval.base import Health, Hit, IndexDamagedError, clean_query
from r1searcher.retrieval.integrity import REMEDY, IndexFiles, write_checksums
from r1searcher.retrieval.manifest import CorpusHash, IndexSettings, Manifest, decode, encode

MANIFEST, ENGINE, PROGRESS = "manifest.json", "tantivy", "progress.json"
COMMIT_EVERY = 500_000
"""Passages between two commits, the most that an interrupted build does again."""

_WRITER_BYTES = 128_000_000
_WATCH_SECONDS = 1.0
"""Between two looks at the files while a search runs: on a file damaged at that moment, tantivy may never end."""

_TRUST_SECONDS = 0.01
"""After a look at the files, before another search looks first: the look after it decides, this one spares tantivy."""

_SPARE_HITS = 12
"""Hits fetched beyond those asked for: they cost hardly anything, a second search for ties as much as the first."""


def is_index(path: Path) -> bool:
    """Whether a folder holds a finished index."""
    return (path / MANIFEST).is_file()


def build(
    passages: Iterable[Passage],
    path: Path,
    settings: IndexSettings | None = None,
    *,
    overwrite: bool = False,
    restart: bool = False,
    threads: int = 1,
    commit_every: int = COMMIT_EVERY,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Manifest:
    """Index passages into the folder `path`, which appears only when all of them are in it.

    An interrupted build of the same passages goes on where it last committed (`restart` throws it away instead). A
    finished index is replaced only with `overwrite`. `on_progress` gets the number of passages read so far. Raises
    `InputError` for a path in use, other passages than those of the build begun, or settings that tantivy has not.
    """
    settings = settings or IndexSettings()
    check_target(path, settings, overwrite)
    building = path.with_name(path.name + ".building")
    if restart and building.exists():
        shutil.rmtree(building)
    manifest = _Build(building, settings, threads).run(passages, commit_every, on_progress)
    _publish(building, path)
    return manifest


def check_target(path: Path, settings: IndexSettings, overwrite: bool) -> None:
    """Raises `InputError` where `build` could not put an index; to be asked before anything large is fetched."""
    if (settings.k1, settings.b) != (1.2, 0.75):
        raise InputError(
            f"The embedded index ranks with k1 1.2 and b 0.75 only, not {settings.k1:g} and {settings.b:g}: "
            "leave them out, or index into Elasticsearch (--to es://host:9200/name), which takes any."
        )
    if is_index(path):
        if not overwrite:
            raise InputError(f"{path} holds an index already: use it, choose another --to, or add --overwrite.")
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} is there and is no index: choose another --to.")


class _Build:
    """A build under way in its own folder. What tantivy has committed is the truth; `progress.json` lets the same
    passages be told from others: it holds the corpus hash at the last commit and at the one being made."""

    def __init__(self, folder: Path, settings: IndexSettings, threads: int) -> None:
        self._folder = folder
        self._settings = settings
        self._analyzer = Analyzer(settings.analyzer)
        engine = folder / ENGINE
        try:
            engine.mkdir(parents=True, exist_ok=True)
            self._index = tantivy.Index(_schema(settings), str(engine), reuse=True)
            self._writer = self._index.writer(_WRITER_BYTES * threads, threads)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{folder} cannot be written ({error}): another build may be at work there; "
                "if not, --restart throws away what an interrupted one left."
            ) from error
        self._digests: dict[int, str] = {}

    def run(self, passages: Iterable[Passage], commit_every: int, on_progress: Callable[[int], None]) -> Manifest:
        rows = iter(passages)
        corpus = CorpusHash()
        done = self._resume(rows, corpus, on_progress)
        while batch := self._add(islice(rows, commit_every), done, corpus, on_progress):
            done += batch
            self._commit(done, corpus)
        if not done:
            raise InputError("The corpus holds no passage: nothing was indexed.")
        self._writer.wait_merging_threads()
        manifest = Manifest(self._settings, done, corpus.hexdigest())
        _write_json(self._folder / MANIFEST, manifest.to_json())
        write_checksums(self._folder)
        return manifest

    def _resume(self, rows: Iterator[Passage], corpus: CorpusHash, on_progress: Callable[[int], None]) -> int:
        """Reads the passages that are committed already, and makes sure that they are the same."""
        self._index.reload()
        committed: int = self._index.searcher().num_docs
        if not committed:
            return 0
        progress = _read_json(self._folder / PROGRESS)
        expected = progress.get("digests", {}).get(str(committed))
        for read, passage in enumerate(islice(rows, committed), 1):
            corpus.add(encode(passage))
            on_progress(read)
        if corpus.hexdigest() != expected or progress.get("settings") != asdict(self._settings):
            raise InputError(
                f"{self._folder} holds a build of other passages or settings that was interrupted: "
                "--restart throws it away and begins anew."
            )
        self._digests = {committed: corpus.hexdigest()}
        return committed

    def _add(self, rows: Iterable[Passage], first: int, corpus: CorpusHash, on_progress: Callable[[int], None]) -> int:
        ordinal = first
        for passage in rows:
            encoded = encode(passage)
            corpus.add(encoded)
            document = tantivy.Document()
            document.add_unsigned("ordinal", ordinal)
            document.add_bytes("passage", encoded)
            if self._settings.title_weight is None:
                document.add_text("terms", self._analyzer.joined(f"{passage.title} {passage.text}"))
            else:
                document.add_text("title", self._analyzer.joined(passage.title))
                document.add_text("terms", self._analyzer.joined(passage.text))
            self._writer.add_document(document)
            ordinal += 1
            on_progress(ordinal)
        return ordinal - first

    def _commit(self, done: int, corpus: CorpusHash) -> None:
        self._digests = {**dict(list(self._digests.items())[-1:]), done: corpus.hexdigest()}
        _write_json(self._folder / PROGRESS, {"settings": asdict(self._settings), "digests": self._digests})
        try:
            self._writer.commit()
        except (OSError, ValueError) as error:
            raise RetrieverError(f"{self._folder} could not be written ({error}); the same command goes on.") from error


def _publish(building: Path, path: Path) -> None:
    """Puts a finished build in its place. The old index is moved aside first, since folders cannot be swapped."""
    for folder in (building / ENGINE, building):
        for file in folder.iterdir():
            _sync(file)
        _sync(folder)
    old = path.with_name(path.name + ".old")
    if is_index(path):
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
    building.rename(path)
    _sync(path.parent)
    (path / PROGRESS).unlink(missing_ok=True)
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_json(path: Path, row: object) -> None:
    """Atomic: a reader finds the old content or the new."""
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    _sync(new)
    new.replace(path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return row if isinstance(row, dict) else {}


def _schema(settings: IndexSettings) -> Any:
    builder = tantivy.SchemaBuilder()
    builder.add_unsigned_field("ordinal", fast=True)
    builder.add_bytes_field("passage", stored=True)
    for field in _fields(settings):
        builder.add_text_field(field, tokenizer_name="whitespace", index_option="freq")
    return builder.build()


def _fields(settings: IndexSettings) -> dict[str, float]:
    """The searched fields and their weights."""
    return {"terms": 1.0} if settings.title_weight is None else {"title": settings.title_weight, "terms": 1.0}


class EmbeddedIndex:
    """A finished index, opened for searching. Searches run in threads and leave the event loop free.

    Once a file is found damaged, every search and `health` raise `IndexDamagedError`: open the index again when the
    file is restored.
    """

    def __init__(self, path: Path, *, thorough: bool = False) -> None:
        """Raises `InputError` where there is no finished index, or a damaged one; `thorough` reads every file."""
        if not is_index(path):
            raise InputError(_why_no_index(path))
        self.path = path
        self._files = IndexFiles(path, thorough)
        self._damage: str | None = None
        self._looked_at = float("-inf")
        self.manifest = Manifest.from_json(_read_json(path / MANIFEST), str(path))
        try:
            with _tantivy(path):
                index = tantivy.Index.open(str(path / ENGINE))
                index.config_reader("manual")
                self._schema = index.schema
                self._searcher = index.searcher()
                found: int = self._searcher.num_docs
        except IndexDamagedError as error:
            raise InputError(str(error)) from error
        if found != self.manifest.passages:
            raise InputError(
                f"The index {path} is damaged (it holds {found:,} passages of {self.manifest.passages:,}): {REMEDY}"
            )
        self._analyzer = Analyzer(self.manifest.settings.analyzer)
        self._fields = _fields(self.manifest.settings)
        self._scale = self.manifest.settings.k1 + 1  # tantivy keeps the factor k1 + 1 that Lucene has dropped
        self._threads = os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="search")

    async def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """Raises `IndexDamagedError` also where a file was written to while the search ran: its hits may be wrong."""
        if self._damage is not None or time.monotonic() - self._looked_at > _TRUST_SECONDS:
            self._require_intact()
        loop = asyncio.get_running_loop()
        size = -(-len(queries) // self._threads) or 1
        parts = [queries[start : start + size] for start in range(0, len(queries), size)]
        try:
            searches = asyncio.gather(*(loop.run_in_executor(self._pool, self._search, part, top_k) for part in parts))
            found = await self._watched(searches)
        except RuntimeError as error:  # closed
            raise RetrieverError(f"The index {self.path} could not be searched: {error}.") from error
        except IndexDamagedError as error:
            self._damage = str(error)
            raise
        self._require_intact()
        return [hits for part in found for hits in part]

    async def _watched(self, searches: "asyncio.Future[list[list[list[Hit]]]]") -> list[list[list[Hit]]]:
        """Waits for the searches, but no longer than the files stay as they are."""
        loop = asyncio.get_running_loop()
        damage: list[IndexDamagedError] = []
        timers: list[asyncio.TimerHandle] = []

        def look() -> None:
            try:
                self._require_intact()
                timers[:] = [loop.call_later(_WATCH_SECONDS, look)]
            except IndexDamagedError as error:
                damage.append(error)
                searches.cancel()

        timers.append(loop.call_later(_WATCH_SECONDS, look))
        try:
            return await searches
        except asyncio.CancelledError:
            if damage:
                raise damage[0] from None
            raise
        finally:
            timers[0].cancel()

    def _require_intact(self) -> None:
        if self._damage is None and (name := self._files.changed()) is not None:
            self._damage = f"The index {self.path} is damaged ({name} was changed while it was in use): {REMEDY}"
        if self._damage is not None:
            raise IndexDamagedError(self._damage)
        self._looked_at = time.monotonic()

    def _search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        return [self.search_one(query, top_k) for query in queries]

    def search_one(self, query: str, top_k: int) -> list[Hit]:
        """One query, in this thread."""
        asked = self._query(query)
        if asked is None or top_k < 1:
            return []
        doc = self._searcher.doc
        with _tantivy(self.path):
            return [
                Hit(decode(doc(address)["passage"][0]), score / self._scale)
                for score, address in self._ranked(asked, top_k)
            ]

    def _query(self, text: str) -> Any | None:
        """A disjunction of terms, as Elasticsearch's `match` makes it; None where no term is left."""
        clauses = []
        for term, count in Counter(self._analyzer.terms(clean_query(text))).items():
            for field, weight in self._fields.items():
                clause = tantivy.Query.term_query(self._schema, field, term, "freq")
                boost = weight * count
                clauses.append(
                    (tantivy.Occur.Should, clause if boost == 1 else tantivy.Query.boost_query(clause, boost))
                )
        return tantivy.Query.boolean_query(clauses) if clauses else None

    def _ranked(self, query: Any, top_k: int) -> list[tuple[float, Any]]:
        """The best `top_k`, equal scores in corpus order.

        tantivy orders equal scores by their place in its segments, which depends on threads and merges. A few hits more
        than asked show all that equal the last one, as a rule; otherwise as many are fetched as that takes.
        """
        limit = min(top_k, self.manifest.passages) + _SPARE_HITS
        hits = self._searcher.search(query, limit, count=False).hits
        while len(hits) == limit and hits[-1][0] == hits[top_k - 1][0]:
            limit *= 4
            hits = self._searcher.search(query, limit, count=False).hits
        if all(first[0] != second[0] for first, second in pairwise(hits[: top_k + 1])):
            return hits[:top_k]
        ordinals = self._searcher.fast_field_values("ordinal", [address for _, address in hits])
        ranked = sorted(zip(hits, ordinals, strict=True), key=lambda pair: (-pair[0][0], pair[1]))
        return [hit for hit, _ in ranked[:top_k]]

    async def health(self) -> Health:
        self._require_intact()
        return Health(str(self.path), self.manifest.passages, self.manifest.settings_hash)

    async def aclose(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _tantivy(path: Path) -> Iterator[None]:
    """The one boundary to tantivy, which fails on nothing but damaged files, with an exception or with a panic."""
    try:
        yield
    except BaseException as error:
        # A panic of Rust is pyo3_runtime.PanicException, which is not an Exception and cannot be imported.
        if isinstance(error, OSError | ValueError | LookupError | TypeError | OverflowError):
            why = str(error) or type(error).__name__
        elif type(error).__name__ == "PanicException":
            why = "tantivy panicked"
        else:
            raise
        raise IndexDamagedError(f"The index {path} is damaged ({why}): {REMEDY}") from error


def _why_no_index(path: Path) -> str:
    make = f"make it with `r1s index-corpus FILE --to {path}`."
    if path.with_name(path.name + ".building").is_dir():
        return f"The index {path} is not finished: the command that began it, given again, goes on."
    if path.is_dir():
        return f"{path} is a folder without an index: {make}"
    return f"There is no index {path}: {make}"
