"""Builds a dense index in a local folder: a vector per passage, and for many passages a graph for approximate search.

    DIR/manifest.json    written last: a folder without it is not an index
    DIR/checksums.json   sizes, modification times and SHA-256 of the other files
    DIR/passages.bin     the passages one after the other, as `encode` gives them
    DIR/ends.bin         where each of them ends there, uint64
    DIR/ids.bin          the hashes of the ids in ascending order, uint64, then the passages that have them, uint64
    DIR/vectors.bin      passages x dimensions, of length 1: float32, float16 or int8
    DIR/scales.bin       for int8, the factor of each row, float32
    DIR/graph.usearch    an HNSW graph (arXiv 1603.09320) of `GRAPH_FROM` or more passages, with vectors in int8

An index is built in the sibling folder `DIR.building` and renamed when it is complete. An interrupted build resumes
with the passages that do not have a vector yet.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from r1searcher.common.files import parse_json, read_text, write_json, writing
from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError
from r1searcher.retrieval.indexing.base import DenseOptions, IndexOptions
from r1searcher.retrieval.indexing.folder import check_folder, empty, publish
from r1searcher.retrieval.indexing.integrity import IndexFiles, has_checksums, write_checksums
from r1searcher.retrieval.indexing.lock import build_lock
from r1searcher.retrieval.indexing.manifest import (
    MANIFEST,
    PROGRESS,
    CorpusHash,
    decode,
    encode,
    manifest_row,
    validated,
)
from r1searcher.retrieval.neural.encoder import Encoder, EncoderSettings
from r1searcher.retrieval.neural.text import text_of

PASSAGES, ENDS, IDS = "passages.bin", "ends.bin", "ids.bin"
VECTORS, SCALES, GRAPH = "vectors.bin", "scales.bin", "graph.usearch"

GRAPH_FROM = 20_000
"""Passages from which an index has a graph; below, comparing with all of them takes milliseconds."""

KIND = "dense"
FORMAT = 1

_CHUNK = 1000
"""Passages that are encoded, and then committed, together."""

_KEPT = "what is committed is kept; run the same command to resume"


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseManifest:
    """The label of a finished dense index. `weights` identifies those of the encoder, `corpus_sha256` the passages;
    `prefixes` names the family whose prefixes were used."""

    encoder: EncoderSettings
    weights: str
    vectors: Literal["float32", "float16", "int8"]
    dimensions: Annotated[int, Field(ge=1, le=1 << 16)]
    passages: Annotated[int, Field(ge=0, lt=1 << 40)]
    corpus_sha256: str
    graph: bool
    prefixes: str = ""
    kind: Literal["dense"] = "dense"
    format: int = FORMAT

    @property
    def fingerprint(self) -> str:
        """Changes with the corpus, the encoder and its weights, and the precision, not with the model's folder."""
        parts = asdict(self) | {"encoder": {**asdict(self.encoder), "model": ""}}
        del parts["prefixes"]  # the prefixes themselves are in the encoder's settings
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]

    @classmethod
    def read(cls, folder: Path) -> "DenseManifest":
        """Raises `InputError` for a folder without a dense index, or one of another version."""
        path, row = folder / MANIFEST, manifest_row(folder)
        if not isinstance(row, dict) or row.get("kind") != KIND:
            raise InputError(f"{folder} is not a dense index: it is one after `r1s index-corpus … --dense MODEL`.")
        if row.get("format") != FORMAT:
            raise InputError(f"{path} is of another version: build the index again with `r1s index-corpus`.")
        return validated(cls, row, str(path))


class DenseIndexer:
    """A folder, or `dense:FOLDER`, to be filled."""

    def __init__(self, url: str, options: IndexOptions) -> None:
        self.folder = Path(url.removeprefix("dense:").removeprefix("file:"))
        if options.dense is None:
            raise InputError(f"{url}: add --dense MODEL, the encoder of the passages.")
        self._dense = options.dense
        self._options = options

    def check(self) -> None:
        check_folder(self.folder, self._options.overwrite)
        graph(1)

    def index(self, passages: Iterable[Passage], on_progress: Callable[[int], None]) -> DenseManifest:
        return build(passages, self.folder, self._dense, self._options, on_progress)


def build(
    passages: Iterable[Passage],
    path: Path,
    dense: DenseOptions,
    options: IndexOptions | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> DenseManifest:
    """Encode passages into the folder `path`, which appears only when it is complete.

    An interrupted build of the same passages resumes. Raises `InputError` for a path in use, an encoder that cannot be
    loaded, or passages other than those of the interrupted build, and `FileError` for a full disk.
    """
    options = options or IndexOptions()
    path = path.resolve() if path.is_symlink() else path
    check_folder(path, options.overwrite)
    encoder = Encoder(
        dense.encoder, device=dense.device, batch_size=dense.batch_size, remote_code=dense.trust_remote_code
    )
    building = path.with_name(path.name + ".building")
    with build_lock(building, path):
        check_folder(path, options.overwrite)  # another build may have ended in the meantime
        if options.restart:
            empty(building)
        try:
            manifest = _Build(building, dense, encoder).run(passages, on_progress)
        except BaseException:
            if not (building / PROGRESS).exists():
                shutil.rmtree(building, ignore_errors=True)  # nothing is committed: leave nothing
            raise
        publish(building, path, "the finished build is kept; run the same command to resume")
    return manifest


@dataclass(frozen=True, slots=True)
class _Progress:
    """`progress.json`: the passages that have a vector, and what the vectors were made with."""

    made_with: dict[str, Any]
    passages: Annotated[int, Field(ge=0)]
    sha256: str
    vectors_sha256: str


class _Build:
    """A build in progress in its own folder. `progress.json` says how much of each file counts."""

    def __init__(self, folder: Path, dense: DenseOptions, encoder: Encoder) -> None:
        self._folder = folder
        self._dense = dense
        self._encoder = encoder
        self._made_with = {"encoder": asdict(dense.encoder), "weights": encoder.weights, "vectors": dense.vectors}
        self._names = (PASSAGES, ENDS, VECTORS, *((SCALES,) if dense.vectors == "int8" else ()))
        self._graph = graph(encoder.dimensions)
        self._stored = hashlib.sha256()

    def run(self, passages: Iterable[Passage], on_progress: Callable[[int], None]) -> DenseManifest:
        rows, corpus = iter(passages), CorpusHash()
        done = self._resume(rows, corpus, on_progress)
        with ExitStack() as stack, writing(self._folder, _KEPT):
            files = {name: stack.enter_context((self._folder / name).open("r+b")) for name in self._names}
            end = files[PASSAGES].seek(0, os.SEEK_END)
            for file in files.values():
                file.seek(0, os.SEEK_END)
            while chunk := list(islice(rows, _CHUNK)):
                end = self._add(chunk, done, end, corpus, files)
                done += len(chunk)
                self._commit(done, corpus, files)
                for number in range(done - len(chunk), done):
                    on_progress(number + 1)
        if not done:
            raise InputError("The corpus does not contain a passage: nothing was indexed.")
        return self._finish(done, corpus)

    def _resume(self, rows: Iterator[Passage], corpus: CorpusHash, on_progress: Callable[[int], None]) -> int:
        """Reads the passages that have a vector already, verifies that they are the same, and cuts the files there."""
        path = self._folder / PROGRESS
        done, end = 0, 0
        if path.exists():
            try:
                progress = validated(_Progress, parse_json(read_text(path, "the record of the build")), str(path))
            except ValueError as error:
                raise InputError(f"{path} is damaged: use --restart to start again.") from error
            while done < progress.passages and (chunk := list(islice(rows, min(_CHUNK, progress.passages - done)))):
                for passage in chunk:
                    corpus.add(encoded := encode(passage))
                    end += len(encoded)
                done += len(chunk)
                on_progress(done)
            if (done, corpus.hexdigest(), self._made_with) != (progress.passages, progress.sha256, progress.made_with):
                raise InputError(
                    f"{self._folder} contains an interrupted build of other passages or settings: "
                    "--restart throws it away and begins again."
                )
            self._check_stored(progress)
        dimensions = self._encoder.dimensions
        width = np.dtype(self._dense.vectors).itemsize * dimensions
        sizes = {PASSAGES: end, ENDS: 8 * done, VECTORS: width * done, SCALES: 4 * done}
        with writing(self._folder, _KEPT):
            for name in self._names:
                with (self._folder / name).open("ab") as file:
                    file.truncate(sizes[name])
        if done:
            stored = StoredVectors(self._folder, self._dense.vectors, done, dimensions)
            for start in range(0, done, _CHUNK):
                block = stored.rows(slice(start, min(start + _CHUNK, done)))
                self._graph.add(np.arange(start, start + len(block)), block)
        return done

    def _check_stored(self, progress: _Progress) -> None:
        """Raises `InputError` if the vectors are not those that were committed."""
        left = progress.passages * self._encoder.dimensions * np.dtype(self._dense.vectors).itemsize
        with writing(self._folder, _KEPT), (self._folder / VECTORS).open("rb") as file:
            while left and (block := file.read(min(left, 1 << 20))):
                self._stored.update(block)
                left -= len(block)
        if left or self._stored.hexdigest() != progress.vectors_sha256:
            raise InputError(f"{self._folder / VECTORS} is damaged: use --restart to start again.")

    def _add(
        self, chunk: Sequence[Passage], first: int, end: int, corpus: CorpusHash, files: dict[str, IO[bytes]]
    ) -> int:
        vectors = self._encoder.passages(list(map(text_of, chunk)))
        encoded = list(map(encode, chunk))
        for one in encoded:
            corpus.add(one)
        ends = end + np.cumsum(list(map(len, encoded)), dtype=np.uint64)
        files[PASSAGES].write(b"".join(encoded))
        files[ENDS].write(ends.astype("<u8").tobytes())
        stored, scales = packed(vectors, self._dense.vectors)
        files[VECTORS].write(data := stored.tobytes())
        self._stored.update(data)
        if scales is not None:
            files[SCALES].write(scales.tobytes())
        self._graph.add(np.arange(first, first + len(chunk)), vectors)
        return int(ends[-1])

    def _commit(self, done: int, corpus: CorpusHash, files: dict[str, IO[bytes]]) -> None:
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
        progress = _Progress(self._made_with, done, corpus.hexdigest(), self._stored.hexdigest())
        write_json(self._folder / PROGRESS, asdict(progress), durable=True, then=_KEPT)

    def _finish(self, done: int, corpus: CorpusHash) -> DenseManifest:
        manifest = DenseManifest(
            encoder=self._dense.encoder,
            weights=self._encoder.weights,
            vectors=self._dense.vectors,
            dimensions=self._encoder.dimensions,
            passages=done,
            corpus_sha256=corpus.hexdigest(),
            graph=done >= GRAPH_FROM,
            prefixes=self._dense.encoder.prefixes,
        )
        with writing(self._folder, _KEPT):
            StoredPassages(self._folder, done).write_ids()
            if manifest.graph:
                self._graph.save(str(self._folder / GRAPH))
        write_json(self._folder / MANIFEST, asdict(manifest), durable=True, then=_KEPT)
        write_checksums(self._folder)
        return manifest


def graph(dimensions: int) -> Any:
    """An empty graph. Raises `InputError` if usearch is not installed."""
    try:
        from usearch.index import Index
    except ImportError as error:
        raise InputError("dense indexes need usearch: pip install 'r1searcher[dense]'") from error
    return Index(ndim=dimensions, metric="cos", dtype="i8", connectivity=32, expansion_add=256)


def packed(
    vectors: npt.NDArray[np.float32], kind: Literal["float32", "float16", "int8"]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32] | None]:
    """Vectors (rows, dimensions) as they are stored, and for int8 the factor of each row."""
    if kind != "int8":
        return vectors.astype(kind), None
    scales = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), np.finfo(np.float32).tiny) / 127
    return np.rint(vectors / scales).astype(np.int8), scales[:, 0].astype(np.float32)


class StoredPassages:
    """The passages of an index by ordinal, mapped into memory."""

    def __init__(self, folder: Path, passages: int) -> None:
        self._folder = folder
        self._ends = np.memmap(folder / ENDS, "<u8", "r", shape=(passages,))
        self._encoded = np.memmap(folder / PASSAGES, np.uint8, "r")

    def __getitem__(self, ordinal: int) -> Passage:
        if not 0 <= ordinal < len(self._ends):
            raise IndexError(ordinal)
        start = int(self._ends[ordinal - 1]) if ordinal else 0
        return decode(self._encoded[start : int(self._ends[ordinal])].tobytes())

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[Passage]:
        """In corpus order."""
        return map(self.__getitem__, range(len(self._ends)))

    def write_ids(self) -> None:
        hashes = np.fromiter((_hash_of(passage.id) for passage in self), np.uint64, len(self._ends))
        order = np.argsort(hashes, kind="stable")  # equal ids stay in corpus order
        np.stack([hashes[order], order.astype(np.uint64)]).astype("<u8").tofile(self._folder / IDS)

    def with_id(self, id_: str) -> Passage | None:
        """The first passage with an id. Raises `FileNotFoundError` for an index that was built without ids."""
        hashes, ordinals = np.memmap(self._folder / IDS, "<u8", "r", shape=(2, len(self._ends)))
        wanted = np.uint64(_hash_of(id_))
        for place in range(int(np.searchsorted(hashes, wanted)), len(hashes)):
            if hashes[place] != wanted:
                break
            if (passage := self[int(ordinals[place])]).id == id_:
                return passage
        return None


def passages_of(folder: Path) -> StoredPassages:
    """The passages of a finished index, every file of it checked, without its encoder. Raises `InputError`."""
    IndexFiles(folder, has_checksums(folder))
    return StoredPassages(folder, DenseManifest.read(folder).passages)


def _hash_of(id_: str) -> int:
    return int.from_bytes(hashlib.blake2b(id_.encode("utf-8", "replace"), digest_size=8).digest())


class StoredVectors:
    """The vectors of an index, mapped into memory."""

    def __init__(
        self, folder: Path, kind: Literal["float32", "float16", "int8"], passages: int, dimensions: int
    ) -> None:
        self._vectors = np.memmap(folder / VECTORS, kind, "r", shape=(passages, dimensions))
        self._scales = np.memmap(folder / SCALES, np.float32, "r", shape=(passages,)) if kind == "int8" else None

    def rows(self, which: slice | npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Shape (rows, dimensions), for a range or for ordinals."""
        rows: npt.NDArray[np.float32] = self._vectors[which].astype(np.float32, copy=False)
        return rows if self._scales is None else rows * self._scales[which, None]

    def cosines(self, which: slice | npt.NDArray[np.int64], vector: npt.NDArray[np.float32]) -> Any:
        """Shape (rows,), with a vector of length 1."""
        products = self._vectors[which].astype(np.float32, copy=False) @ vector
        return products if self._scales is None else products * self._scales[which]
