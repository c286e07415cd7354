"""Builds a BM25 index in a local folder, based on tantivy.

    DIR/manifest.json   written last: a folder without it is not an index
    DIR/checksums.json  sizes, modification times and SHA-256 of the other files
    DIR/tantivy/        terms (made by our analyzer, joined by spaces), ids, corpus order, the stored passages

An index is built in the sibling folder `DIR.building` and renamed when it is complete. Passages are committed
regularly, so an interrupted build resumes after the last commit.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import tantivy

from r1searcher.common.files import cause_of, parse_json, read_text, write_json, writing
from r1searcher.corpora.passage import Passage
from r1searcher.errors import FileError, InputError, R1Error
from r1searcher.retrieval.indexing.analyzer import Analyzer
from r1searcher.retrieval.indexing.base import IndexOptions
from r1searcher.retrieval.indexing.folder import check_folder, empty, publish
from r1searcher.retrieval.indexing.integrity import is_panic, write_checksums
from r1searcher.retrieval.indexing.lock import build_lock
from r1searcher.retrieval.indexing.manifest import (
    ENGINE,
    MANIFEST,
    PROGRESS,
    CorpusHash,
    IndexSettings,
    Manifest,
    encode,
    folder_of,
    searched_fields,
    validated,
)

COMMIT_EVERY = 500_000
"""Passages between two commits, the most that an interrupted build must repeat."""

_WRITER_BYTES = 128_000_000
_KEPT = "what is committed is kept; run the same command to resume"
_PROBE_MB = 32


def build(
    passages: Iterable[Passage],
    path: Path,
    options: IndexOptions | None = None,
    *,
    threads: int = 1,
    commit_every: int = COMMIT_EVERY,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Manifest:
    """Index passages into the folder `path`, which appears only when it is complete.

    An interrupted build of the same passages resumes at its last commit. `on_progress` gets the number of passages read
    so far. Raises `InputError` for a path in use or being built, passages other than those of the interrupted build, or
    settings that tantivy does not have, and `FileError` for a full disk or a missing permission; what is committed is
    kept.
    """
    options = options or IndexOptions()
    if path.is_symlink():
        path = path.resolve()
    check_target(path, options)
    building = path.with_name(path.name + ".building")
    with build_lock(building, path):
        check_target(path, options)  # another build may have ended in the meantime
        if options.restart:
            empty(building)
        fresh = not (building / ENGINE).exists()
        try:
            work = _Build(building, options.settings, threads)
            try:
                manifest = work.run(passages, commit_every, on_progress)
            finally:
                work.close()
        except BaseException:
            if fresh and not (building / PROGRESS).exists():
                shutil.rmtree(building, ignore_errors=True)  # nothing is committed: leave nothing
            raise
        publish(building, path, "the finished build is kept; run the same command to resume")
    return manifest


def check_target(path: Path, options: IndexOptions) -> None:
    """Raises `InputError` if `build` could not create an index there; call it before large downloads."""
    settings = options.settings
    if (settings.k1, settings.b) != (1.2, 0.75):
        raise InputError(
            f"The embedded index ranks with k1 1.2 and b 0.75 only, not {settings.k1:g} and {settings.b:g}: "
            "omit them, or index into Elasticsearch (--to es://host:9200/name), which accepts any."
        )
    check_folder(path, options.overwrite)


class Bm25Indexer:
    """A folder, or `file:FOLDER`, to be filled."""

    def __init__(self, url: str, options: IndexOptions) -> None:
        name = folder_of(url)
        if not name.strip():
            raise InputError("--to is empty: give a folder, es://host:9200/name or opensearch://host:9200/name.")
        self.folder = Path(name)
        self._options = options

    def check(self) -> None:
        check_target(self.folder, self._options)

    def index(self, passages: Iterable[Passage], on_progress: Callable[[int], None]) -> Manifest:
        return build(passages, self.folder, self._options, on_progress=on_progress)


@contextmanager
def _engine(folder: Path) -> Iterator[None]:
    """Turns tantivy's exceptions into ours."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise _engine_error(folder, str(error)) from error
    except BaseException as error:
        if not is_panic(error):
            raise
        raise _engine_error(folder, str(error)) from None


def _engine_error(folder: Path, message: str) -> R1Error:
    """tantivy reports the cause as text, or not at all if one of its threads failed: then a write is tried."""
    if found := re.search(r"os error (\d+)", message):
        cause = cause_of(OSError(int(found[1]), os.strerror(int(found[1]))))
    elif error := _write_error(folder):
        cause = cause_of(error)
    else:
        return InputError(
            f"{folder} contains a damaged interrupted build ({message.splitlines()[0][:200]}): "
            "use --restart to discard it and start again."
        )
    return FileError(f"{folder} cannot be written: {cause}; {_KEPT}.")


def _write_error(folder: Path) -> OSError | None:
    """The error of writing as much as a segment may hold."""
    probe = folder / "probe"
    try:
        with probe.open("wb") as file:
            for _ in range(_PROBE_MB):
                file.write(bytes(1 << 20))
    except OSError as error:
        return error
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    return None


@dataclass(frozen=True, slots=True)
class _Progress:
    """`progress.json`: the corpus hash by number of passages, at the last commit and the one in progress."""

    settings: IndexSettings
    digests: dict[int, str]


class _Build:
    """A build in progress in its own folder. What tantivy has committed is the truth; `progress.json` lets the same
    passages be distinguished from others: it holds the corpus hash at the last commit and at the one being made."""

    def __init__(self, folder: Path, settings: IndexSettings, threads: int) -> None:
        self._folder = folder
        self._settings = settings
        self._analyzer = Analyzer(settings.analyzer)
        engine = folder / ENGINE
        with writing(engine):
            engine.mkdir(exist_ok=True)
        with _engine(folder):
            self._index = tantivy.Index(_schema(settings), str(engine), reuse=True)
            self._writer: Any = self._index.writer(_WRITER_BYTES * threads, threads)
        self._digests: dict[int, str] = {}

    def run(self, passages: Iterable[Passage], commit_every: int, on_progress: Callable[[int], None]) -> Manifest:
        rows = iter(passages)
        corpus = CorpusHash()
        done = self._resume(rows, corpus, on_progress)
        while batch := self._add(islice(rows, commit_every), done, corpus, on_progress):
            done += batch
            self._commit(done, corpus)
        if not done:
            raise InputError("The corpus does not contain a passage: nothing was indexed.")
        with _engine(self._folder):
            self._writer.wait_merging_threads()
        manifest = Manifest(self._settings, done, corpus.hexdigest())
        write_json(self._folder / MANIFEST, manifest.to_json(), durable=True, then=_KEPT)
        write_checksums(self._folder)
        return manifest

    def close(self) -> None:
        """Releases tantivy's own lock, even while a traceback still refers to this build."""
        self._writer = None

    def _resume(self, rows: Iterator[Passage], corpus: CorpusHash, on_progress: Callable[[int], None]) -> int:
        """Reads the passages that are already committed, and verifies that they are the same."""
        with _engine(self._folder):
            self._index.reload()
            committed: int = self._index.searcher().num_docs
        if not committed:
            return 0
        progress = self._progress()
        for read, passage in enumerate(islice(rows, committed), 1):
            corpus.add(encode(passage))
            on_progress(read)
        if corpus.hexdigest() != progress.digests.get(committed) or progress.settings != self._settings:
            raise InputError(
                f"{self._folder} contains an interrupted build of other passages or settings: "
                "--restart throws it away and begins again."
            )
        self._digests = {committed: corpus.hexdigest()}
        return committed

    def _progress(self) -> _Progress:
        path = self._folder / PROGRESS
        try:
            return validated(_Progress, parse_json(read_text(path, "the record of the interrupted build")), str(path))
        except (ValueError, InputError) as error:
            raise InputError(
                f"{path} is missing or damaged, so the interrupted build cannot be resumed: "
                "use --restart to discard it and start again."
            ) from error

    def _add(self, rows: Iterable[Passage], first: int, corpus: CorpusHash, on_progress: Callable[[int], None]) -> int:
        ordinal = first
        for passage in rows:
            encoded = encode(passage)
            corpus.add(encoded)
            document = tantivy.Document()
            document.add_unsigned("ordinal", ordinal)
            document.add_text("id", passage.id)
            document.add_bytes("passage", encoded)
            if self._settings.title_weight is None:
                document.add_text("terms", self._analyzer.joined(f"{passage.title} {passage.text}"))
            else:
                document.add_text("title", self._analyzer.joined(passage.title))
                document.add_text("terms", self._analyzer.joined(passage.text))
            with _engine(self._folder):
                self._writer.add_document(document)
            ordinal += 1
            on_progress(ordinal)
        return ordinal - first

    def _commit(self, done: int, corpus: CorpusHash) -> None:
        self._digests = {**dict(list(self._digests.items())[-1:]), done: corpus.hexdigest()}
        progress = {"settings": asdict(self._settings), "digests": self._digests}
        write_json(self._folder / PROGRESS, progress, durable=True, then=_KEPT)
        with _engine(self._folder):
            self._writer.commit()


def _schema(settings: IndexSettings) -> Any:
    builder = tantivy.SchemaBuilder()
    builder.add_unsigned_field("ordinal", fast=True)
    builder.add_text_field("id", tokenizer_name="raw", index_option="basic")
    builder.add_bytes_field("passage", stored=True)
    for field in searched_fields(settings):
        builder.add_text_field(field, tokenizer_name="whitespace", index_option="freq")
    return builder.build()
