"""A BM25 index in a local folder, based on tantivy; it ranks and scores like Lucene.

`retrieval/indexing/bm25.py` builds it and describes the folder.
"""

import asyncio
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import tantivy

from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError, RetrieverError
from r1searcher.retrieval.base import (
    EngineSettings,
    Health,
    Hit,
    IndexDamagedError,
    NoLookupError,
    Retriever,
    SearchResult,
    Span,
    clean_query,
)
from r1searcher.retrieval.indexing.analyzer import Analyzer
from r1searcher.retrieval.indexing.integrity import REMEDY, IndexFiles, has_checksums, is_panic
from r1searcher.retrieval.indexing.manifest import (
    ENGINE,
    decode,
    folder_of,
    is_index,
    read_manifest,
    refuse_unreadable,
    searched_fields,
)
from r1searcher.retrieval.links.reopening import ReopeningRetriever

_T = TypeVar("_T")

_WATCH_SECONDS = 1.0
"""Seconds between two checks of the files during a search: on a file damaged then, tantivy may never end."""

_TRUST_SECONDS = 0.01
"""Seconds after a check of the files during which searches skip the check before; the check after decides."""

_SPARE_HITS = 12
"""Hits fetched in addition to those requested: they cost little, a second search for ties as much as the first."""

_PASSAGES_AT_ONCE = 10_000
"""Passages that are read together when all of them are read."""


class Settings(EngineSettings):
    """`index/` or `file:index/`: a folder that `r1s index-corpus` created."""

    kind: Literal["bm25"] = "bm25"

    @property
    def folder(self) -> Path:
        return Path(folder_of(self.url))

    def absolute(self) -> Self:
        return self.model_copy(update={"url": str(self.folder.absolute())})

    def open(self) -> Retriever:
        return EmbeddedIndex(self.folder)

    def open_checked(self) -> Retriever:
        """Every file is read, to compare its checksum."""
        return EmbeddedIndex(self.folder, thorough=has_checksums(self.folder))

    def open_in_server(self, fingerprint: str) -> Retriever:
        def index(again: bool) -> tuple[Retriever, str]:
            opened = EmbeddedIndex(self.folder, thorough=again)
            return opened, opened.manifest.fingerprint

        return ReopeningRetriever(index, str(self.folder), fingerprint)


class EmbeddedIndex:
    """A finished index, opened for searching. Searches run in threads and do not block the event loop.

    Once a file is found damaged, every search and `health` raise `IndexDamagedError`: reopen the index after the file
    is restored.
    """

    def __init__(self, path: Path, *, thorough: bool = False) -> None:
        """Raises `InputError` if there is no finished index, or it is damaged; `thorough` reads every file."""
        if not is_index(path):
            raise InputError(_why_no_index(path))
        self.path = path
        refuse_unreadable(path)
        self._files = IndexFiles(path, thorough)
        self._damage: str | None = None
        self._looked_at = float("-inf")
        self.manifest = read_manifest(path)
        try:
            with _tantivy(path):
                self._links = None if _may_lock(path / ENGINE) else _linked(path / ENGINE)
                index = tantivy.Index.open(self._links.name if self._links else str(path / ENGINE))
                index.config_reader("manual")
                self._schema = index.schema
                self._searcher = index.searcher()
                found: int = self._searcher.num_docs
        except IndexDamagedError as error:
            raise InputError(str(error)) from error
        if found != self.manifest.passages:
            raise InputError(
                f"The index {path} is damaged (it has {found:,} of {self.manifest.passages:,} passages): {REMEDY}"
            )
        self._has_ids = _has_field(self._schema, "id")
        self._analyzer = Analyzer(self.manifest.settings.analyzer)
        self._fields = searched_fields(self.manifest.settings)
        self._scale = self.manifest.settings.k1 + 1  # tantivy keeps the factor k1 + 1 that Lucene dropped
        self._threads = os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="search")

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        """Also raises `IndexDamagedError` if a file was changed during the search: its hits may be wrong."""
        started = time.perf_counter()
        if self._damage is not None or time.monotonic() - self._looked_at > _TRUST_SECONDS:
            self._require_intact()
        size = -(-len(queries) // self._threads) or 1
        parts = [queries[start : start + size] for start in range(0, len(queries), size)]
        found = await self._in_threads([partial(self._search, part, top_k) for part in parts])
        spans = (Span("bm25", time.perf_counter() - started),)
        return [SearchResult(tuple(hits), spans=spans) for part in found for hits in part]

    async def passage(self, id_: str) -> Passage | None:
        """Raises `NoLookupError` for an index that was built without ids; also `IndexDamagedError`, like `search`."""
        if not self._has_ids:
            raise NoLookupError
        self._require_intact()
        [found] = await self._in_threads([partial(self._passage, id_)])
        return found

    async def _in_threads(self, calls: Sequence[Callable[[], _T]]) -> list[_T]:
        """What the calls return, if the files are the same before and after."""
        loop = asyncio.get_running_loop()
        try:
            found = await self._watched(asyncio.gather(*(loop.run_in_executor(self._pool, call) for call in calls)))
        except RuntimeError as error:  # closed
            raise RetrieverError(f"The index {self.path} could not be searched: {error}.") from error
        except IndexDamagedError as error:
            self._damage = str(error)
            raise
        self._require_intact()
        return found

    async def _watched(self, searches: "asyncio.Future[list[_T]]") -> list[_T]:
        """Waits for the searches, but only while the files are unchanged."""
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

    def _passage(self, id_: str) -> Passage | None:
        with _tantivy(self.path):
            query = tantivy.Query.term_query(self._schema, "id", id_)
            hits = self._searcher.search(query, 1, count=False, order_by_field="ordinal", order=tantivy.Order.Asc).hits
            return decode(self._searcher.doc(hits[0][1])["passage"][0]) if hits else None

    def _query(self, text: str) -> Any | None:
        """A disjunction of terms, like Elasticsearch's `match`; None if no term is left."""
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

        tantivy orders equal scores by their position in its segments, which depends on threads and merges. A few
        additional hits usually include all that equal the last one; otherwise more are fetched.
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

    def passages(self) -> Iterator[Passage]:
        """Every passage, in corpus order, read in this thread. Raises `IndexDamagedError`."""
        for first in range(0, self.manifest.passages, _PASSAGES_AT_ONCE):
            last = min(first + _PASSAGES_AT_ONCE, self.manifest.passages) - 1
            with _tantivy(self.path):
                asked = tantivy.Query.range_query(self._schema, "ordinal", tantivy.FieldType.Unsigned, first, last)
                hits = self._searcher.search(
                    asked, last - first + 1, count=False, order_by_field="ordinal", order=tantivy.Order.Asc
                ).hits
                if [ordinal for ordinal, _ in hits] != list(range(first, last + 1)):
                    raise ValueError(f"passages {first:,} to {last:,} are not complete")
                found = [decode(self._searcher.doc(address)["passage"][0]) for _, address in hits]
            self._require_intact()
            yield from found

    async def health(self) -> Health:
        self._require_intact()
        return Health(str(self.path), self.manifest.passages, self.manifest.fingerprint)

    async def aclose(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _has_field(schema: Any, name: str) -> bool:
    try:
        tantivy.Query.term_query(schema, name, "")
    except ValueError:
        return False
    return True


@contextmanager
def _tantivy(path: Path) -> Iterator[None]:
    """The boundary to tantivy, which fails only on damaged files, with an exception or a panic."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, OSError | ValueError | LookupError | TypeError | OverflowError):
            why = str(error) or type(error).__name__
        elif is_panic(error):
            why = "tantivy panicked"
        else:
            raise
        raise IndexDamagedError(f"The index {path} is damaged ({why}): {REMEDY}") from error


def _may_lock(engine: Path) -> bool:
    """Whether tantivy can open the folder: it opens a lock file for writing even to read."""
    lock = engine / ".tantivy-meta.lock"
    return os.access(lock if lock.exists() else engine, os.W_OK)


def _linked(engine: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder of links to the files of an index that this process may read but not write."""
    folder = tempfile.TemporaryDirectory(prefix="r1s-index-")
    for file in engine.iterdir():
        if file.suffix != ".lock":
            (Path(folder.name) / file.name).symlink_to(file.absolute())
    return folder


def _why_no_index(path: Path) -> str:
    if not path.name:
        return f"{path} is not an index: give the folder that `r1s index-corpus` created."
    make = f"create it with `r1s index-corpus FILE --to {path}`."
    if path.with_name(path.name + ".building").is_dir():
        return f"The index {path} is not finished: run the command that started it again to resume."
    if path.with_name(path.name + ".pulling").is_dir():
        return f"The index {path} is not whole: run the `r1s index pull` that was interrupted again."
    if path.is_dir():
        return f"{path} is a folder without an index: {make}"
    return f"There is no index {path}: {make}"
