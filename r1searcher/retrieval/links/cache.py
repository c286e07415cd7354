"""A recording of searches in a file: repeated runs get the same results, even without the search engine.

One SQLite file, which many processes may use at once. A row is the result of one query with a number of passages; only
results without an error are recorded. `record` adds what is missing, `replay` never asks the search engine, `refresh`
asks it every time and replaces what was recorded.
"""

import asyncio
import copy
import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StrictStr, ValidationError

from r1searcher.common.terminal import visible
from r1searcher.corpora.passage import Passage
from r1searcher.errors import FileError, InputError, R1Error, RetrieverError
from r1searcher.retrieval.base import EpisodeContext, Health, Hit, Retriever, SearchResult, clean_query, search_all
from r1searcher.retrieval.links.base import Link, LinkSettings, Stopwatch
from r1searcher.retrieval.registry import described

_WAIT_SECONDS = 60.0
"""For another process that writes to the file."""

_FORMAT = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS searches (key TEXT PRIMARY KEY, query TEXT NOT NULL, top_k INTEGER NOT NULL,
                                     hits TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS retrievers (chain TEXT PRIMARY KEY, health TEXT NOT NULL) WITHOUT ROWID;
"""

_T = TypeVar("_T")


class Settings(LinkSettings):
    """`URL -> cache:FILE` or `URL -> cache:MODE:FILE`; the mode is record, replay or refresh."""

    kind: Literal["cache"] = "cache"

    file: str = Field(min_length=1)
    """The file of the recording; it is made when it is missing, except to replay."""

    mode: Literal["record", "replay", "refresh"] = "record"
    """record: ask the search engine for what is not recorded; replay: never ask it; refresh: always ask it."""

    @classmethod
    def keys_of(cls, argument: str) -> Mapping[str, Any]:
        mode, colon, file = argument.partition(":")
        if colon and mode in ("record", "replay", "refresh"):
            return {"mode": mode, "file": file}
        return {"file": argument}

    def absolute(self) -> Self:
        return super().absolute().model_copy(update={"file": str(Path(self.file).absolute())})

    def open(self) -> Retriever:
        if self.mode == "replay":
            return Replay(self)
        return super().open()

    def open_checked(self) -> Retriever:
        return Replay(self) if self.mode == "replay" else super().open_checked()

    def wrap(self, retriever: Retriever) -> Retriever:
        return Cache(retriever, self)


class _Hit(BaseModel):
    """A recorded hit. The file may come from somebody else."""

    model_config = ConfigDict(strict=True, extra="forbid")

    id: StrictStr
    title: StrictStr
    text: StrictStr
    score: FiniteFloat


class _Hits(BaseModel):
    hits: list[_Hit]


class _Health(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    name: StrictStr
    passages: Annotated[int, Field(ge=0)] | None
    fingerprint: StrictStr


class Recording:
    """The file. Its methods run in one thread per process, so that the event loop is never blocked.

    Raises `FileError` if the file cannot be read or written, and `InputError` if it is not a recording.
    """

    def __init__(self, file: Path, *, read_only: bool) -> None:
        self.file = file
        if read_only and not file.is_file():
            raise InputError(f"{file} does not exist: record it first with `cache:{file}`, then replay it")
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cache")
        self._read_only = read_only
        try:
            self._database = self._thread.submit(self._open).result()
        except BaseException:
            self._thread.shutdown(wait=False)
            raise

    async def run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, work)

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            await self.run(sqlite3.Connection.close)
            self._thread.shutdown(wait=False)

    def _open(self) -> sqlite3.Connection:
        with self._boundary():
            mode = "ro" if self._read_only else "rwc"
            database = sqlite3.connect(
                f"{self.file.absolute().as_uri()}?mode={mode}", uri=True, timeout=_WAIT_SECONDS, isolation_level=None
            )
            (version,) = database.execute("PRAGMA user_version").fetchone()
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if (tables and version != _FORMAT) or (self._read_only and "searches" not in tables):
                raise InputError(f"{self.file} is not a recording of searches: choose another file")
            if not self._read_only:
                database.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {_FORMAT}; COMMIT;")
            return database

    def _guarded(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        with self._boundary():
            return work(self._database)

    @contextmanager
    def _boundary(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if "not a database" in str(error):
                raise InputError(f"{self.file} is not a recording of searches: choose another file") from error
            raise FileError(f"{self.file}: the recording of searches cannot be used ({error})") from error


class _Keys:
    """Names the searches of one chain; those of an episode if its results depend on it."""

    def __init__(self, settings: Settings, episode: EpisodeContext | None = None) -> None:
        self._settings = settings
        self.chain = json.dumps(described(settings.of.absolute()), sort_keys=True)
        of_episode = episode is not None and settings.needs_episode
        self._episode = [episode.id, episode.question, episode.step, episode.search] if episode and of_episode else []

    def for_episode(self, episode: EpisodeContext) -> "_Keys":
        return _Keys(self._settings, episode) if self._settings.needs_episode else self

    def of(self, query: str, top_k: int) -> str:
        parts = json.dumps([self.chain, self._episode, query, top_k])
        return hashlib.sha256(parts.encode()).hexdigest()


class Cache(Link):
    """Records the results of another retriever, and answers from the recording.

    Searches for the same at the same time ask the retriever once.
    """

    def __init__(self, retriever: Retriever, settings: Settings) -> None:
        super().__init__(retriever)
        self._refresh = settings.mode == "refresh"
        self._recording = Recording(Path(settings.file), read_only=False)
        self._keys = _Keys(settings)
        self._running: dict[str, asyncio.Future[SearchResult]] = {}

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        watch = Stopwatch("cache")
        asked = {self._keys.of(query, top_k): query for query in map(clean_query, queries)}
        keys = [self._keys.of(clean_query(query), top_k) for query in queries]
        known = {} if self._refresh else await self._recording.run(lambda file: _read(file, self._recording, keys))
        results = {key: SearchResult(hits, spans=(watch.span(cached=True),)) for key, hits in known.items()}
        others = {key: self._running[key] for key in asked if key not in results and key in self._running}
        new = {key: query for key, query in asked.items() if key not in results and key not in others}
        if new:
            results |= await self._recorded(new, top_k)
        for key, running in others.items():
            results[key] = await asyncio.shield(running)
        return [results[key] for key in keys]

    async def _recorded(self, asked: Mapping[str, str], top_k: int) -> dict[str, SearchResult]:
        """Results of the retriever by key; those without an error are in the file when this returns."""
        futures = {key: asyncio.get_running_loop().create_future() for key in asked}
        self._running |= futures
        try:
            found = dict(zip(asked, await search_all(self._retriever, list(asked.values()), top_k), strict=True))
            rows = [(key, asked[key], top_k, _written(one.hits)) for key, one in found.items() if one.error is None]
            stored = await self._recording.run(lambda file: _write(file, self._recording, rows, self._refresh))
            # Another process may have recorded the same search first: all of them return what is in the file.
            results = {
                key: one if one.error is not None else SearchResult(stored[key], spans=one.spans)
                for key, one in found.items()
            }
        except BaseException as error:
            outcome = error if isinstance(error, R1Error) else RetrieverError("The search was ended.", transient=True)
            for future in futures.values():
                future.set_exception(outcome)
                future.exception()  # nobody may wait for it
            raise
        finally:
            for key in asked:
                del self._running[key]
        for key, future in futures.items():
            future.set_result(results[key])
        return results

    def for_episode(self, episode: EpisodeContext) -> Self:
        bound = super().for_episode(episode)
        if bound is not self:
            bound._keys = self._keys.for_episode(episode)
        return bound

    async def health(self) -> Health:
        health = await self._retriever.health()
        row = (self._keys.chain, json.dumps(asdict(health)))
        await self._recording.run(lambda file: file.execute("INSERT OR REPLACE INTO retrievers VALUES (?, ?)", row))
        return Health(f"{health.name} -> cache:{self._recording.file}", health.passages, health.fingerprint)

    async def aclose(self) -> None:
        await super().aclose()
        await self._recording.aclose()


class Replay:
    """Answers from a recording alone; a search that is not in it is an error. The recorded retriever is not opened."""

    def __init__(self, settings: Settings) -> None:
        self._shown = settings.of.shown
        self._recording = Recording(Path(settings.file), read_only=True)
        self._keys = _Keys(settings)

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        watch = Stopwatch("cache")
        keys = [self._keys.of(clean_query(query), top_k) for query in queries]
        known = await self._recording.run(lambda file: _read(file, self._recording, keys))
        return [
            SearchResult(known[key], spans=(watch.span(cached=True),)) if key in known else self._missing(query)
            for key, query in zip(keys, queries, strict=True)
        ]

    def for_episode(self, episode: EpisodeContext) -> Self:
        bound = copy.copy(self)
        bound._keys = self._keys.for_episode(episode)
        return bound

    async def health(self) -> Health:
        """That of the retriever when it was recorded. The fingerprint is that of everything in the recording."""
        rows, kept = await self._recording.run(self._contents)
        digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
        passages = _Health.model_validate_json(kept).passages if kept else None
        return Health(f"{self._shown} -> cache:replay:{self._recording.file}", passages, digest)

    async def aclose(self) -> None:
        await self._recording.aclose()

    def _contents(self, file: sqlite3.Connection) -> tuple[list[Any], str | None]:
        rows = file.execute("SELECT key, hits FROM searches ORDER BY key").fetchall()
        kept = file.execute("SELECT health FROM retrievers WHERE chain = ?", (self._keys.chain,)).fetchone()
        return rows, kept[0] if kept else None

    def _missing(self, query: str) -> SearchResult:
        where = f"{self._recording.file} has no recorded search for {visible(query[:80])!r} from {self._shown}"
        return SearchResult(error=RetrieverError(f"{where}: record it with the mode `record`"))


def _read(file: sqlite3.Connection, recording: Recording, keys: Sequence[str]) -> dict[str, tuple[Hit, ...]]:
    found = {}
    for key in dict.fromkeys(keys):
        row = file.execute("SELECT query, hits FROM searches WHERE key = ?", (key,)).fetchone()
        if row is not None:
            found[key] = _hits(recording, *row)
    return found


def _write(
    file: sqlite3.Connection, recording: Recording, rows: Sequence[tuple[str, str, int, str]], replace: bool
) -> dict[str, tuple[Hit, ...]]:
    """Records all rows in one transaction, and returns what the file then has for them."""
    file.execute("BEGIN IMMEDIATE")
    try:
        file.executemany(f"INSERT OR {'REPLACE' if replace else 'IGNORE'} INTO searches VALUES (?, ?, ?, ?)", rows)
        file.execute("COMMIT")
    except BaseException:
        if file.in_transaction:
            file.execute("ROLLBACK")
        raise
    return _read(file, recording, [key for key, *_ in rows])


def _written(hits: Sequence[Hit]) -> str:
    rows = [{"id": h.passage.id, "title": h.passage.title, "text": h.passage.text, "score": h.score} for h in hits]
    return json.dumps(rows)


def _hits(recording: Recording, query: str, text: str) -> tuple[Hit, ...]:
    try:
        rows = _Hits.model_validate({"hits": json.loads(text)}).hits
    except (ValueError, ValidationError) as error:
        raise InputError(
            f"{recording.file} is damaged (the recorded search for {visible(query[:80])!r} cannot be read): "
            "restore the file, or record it again with the mode `refresh`"
        ) from error
    return tuple(Hit(Passage(row.id, row.title, row.text), row.score) for row in rows)
