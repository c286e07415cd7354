"""Building a BM25 index in a folder of this machine, on tantivy.

    DIR/manifest.json   written last: a folder without it is not an index
    DIR/checksums.json  sizes, modification times and SHA-256 of the other files
    DIR/tantivy/        terms (made by our analyzer, joined by blanks), corpus order, the stored passages

An index is built in the sibling folder `DIR.building` and renamed when it is whole. Passages are committed as they
come, so the same build started again goes on after the last commit.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import tantivy

from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError, RetrieverError
from r1searcher.retrieval.analyzer import Analyzer
from r1searcher.retrieval.integrity import write_checksums
from r1searcher.retrieval.manifest import (
    ENGINE,
    MANIFEST,
    PROGRESS,
    CorpusHash,
    IndexSettings,
    Manifest,
    encode,
    is_index,
    read_json,
    searched_fields,
)

COMMIT_EVERY = 500_000
"""Passages between two commits, the most that an interrupted build does again."""

_WRITER_BYTES = 128_000_000


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
        progress = read_json(self._folder / PROGRESS)
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


def _schema(settings: IndexSettings) -> Any:
    builder = tantivy.SchemaBuilder()
    builder.add_unsigned_field("ordinal", fast=True)
    builder.add_bytes_field("passage", stored=True)
    for field in searched_fields(settings):
        builder.add_text_field(field, tokenizer_name="whitespace", index_option="freq")
    return builder.build()
