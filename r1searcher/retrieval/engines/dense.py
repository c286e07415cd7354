"""A dense index in a local folder: passages by the cosine of their vector and the query's.

`retrieval/indexing/dense.py` builds it and describes the folder.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

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
    query_line,
)
from r1searcher.retrieval.indexing.dense import GRAPH, DenseManifest, StoredPassages, StoredVectors, graph
from r1searcher.retrieval.indexing.integrity import REMEDY, IndexFiles, has_checksums
from r1searcher.retrieval.indexing.manifest import is_index, refuse_unreadable
from r1searcher.retrieval.links.reopening import ReopeningRetriever
from r1searcher.retrieval.neural.encoder import Encoder, Vectors
from r1searcher.retrieval.neural.shared import Shared

_T = TypeVar("_T")

Ordinals = npt.NDArray[np.int64]

_BLOCK = 16_384
"""Passages compared at a time in an exact search, to bound memory."""

_CANDIDATES = 4
"""Candidates of the graph per requested passage: its int8 vectors only approximate those that decide."""

_DECIMALS = 6
"""Scores are rounded: equal vectors then have equal scores wherever they are in a matrix product."""


class Settings(EngineSettings):
    """`dense:index/`, or the folder alone, created by `r1s index-corpus … --dense MODEL` (`pip install
    'r1searcher[dense]'`)."""

    kind: Literal["dense"] = "dense"

    exact: bool = False
    """Compare with every passage, also where the index has a graph for approximate search."""

    expansion: int = Field(96, ge=1, le=100_000)
    """Passages of the graph that are visited at least; with more, more of the nearest ones are found."""

    device: str = "cpu"
    """Device of the encoder: cpu, cuda, cuda:1, …"""

    batch_size: int = Field(64, ge=1, le=10_000)
    """Queries per forward pass of the encoder."""

    trust_remote_code: bool = False
    """Run Python code that comes with the encoder. Leave this off unless you wrote or read that code."""

    @property
    def folder(self) -> Path:
        return Path(self.url.removeprefix("dense:"))

    def absolute(self) -> Self:
        return self.model_copy(update={"url": f"dense:{self.folder.absolute()}"})

    def open(self) -> Retriever:
        return DenseIndex(self.folder, self)

    def open_checked(self) -> Retriever:
        """Every file is read, to compare its checksum."""
        return DenseIndex(self.folder, self, thorough=has_checksums(self.folder))

    def open_in_server(self, fingerprint: str) -> Retriever:
        def index(again: bool) -> tuple[Retriever, str]:
            opened = DenseIndex(self.folder, self, thorough=again)
            return opened, opened.fingerprint

        return ReopeningRetriever(index, str(self.folder), fingerprint)


class DenseIndex:
    """A finished index with its encoder. Queries of different episodes are encoded together."""

    def __init__(self, path: Path, settings: Settings | None = None, *, thorough: bool = False) -> None:
        """Raises `InputError` if there is no such index, it is damaged, or its encoder is not the one that made it."""
        settings = settings or Settings(url=f"dense:{path}")
        if not is_index(path):
            raise InputError(f"There is no index {path}: `r1s index-corpus … --dense MODEL --to {path}` creates it.")
        refuse_unreadable(path)
        self.path = path
        self.manifest = manifest = DenseManifest.read(path)
        self._files = IndexFiles(path, thorough)
        self._passages = StoredPassages(path, manifest.passages)
        self._vectors = StoredVectors(path, manifest.vectors, manifest.passages, manifest.dimensions)
        self._graph = None if settings.exact or not manifest.graph else _opened(path, manifest, settings.expansion)
        encoder = Encoder(
            manifest.encoder,
            device=settings.device,
            batch_size=settings.batch_size,
            remote_code=settings.trust_remote_code,
        )
        if encoder.weights != manifest.weights:
            raise InputError(
                f"{manifest.encoder.model} is not the model that {path} was made with: its weights are others; "
                "restore them, or build the index again with `r1s index-corpus`."
            )
        self._encode: Shared[str, Vectors] = Shared(lambda texts: list(encoder.queries(texts)), "encoder")
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="dense")
        searched = "" if self._graph is None else f"-{settings.expansion}"
        self.fingerprint = f"{manifest.fingerprint}{searched}"

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        """Raises `IndexDamagedError` if a file was changed: its hits may be wrong."""
        started = time.perf_counter()
        self._require_intact()
        texts = [query_line(query) if top_k > 0 else "" for query in queries]
        vectors = await self._encode([text for text in texts if text])
        found = iter(await self._in_threads([partial(self._hits, vector, top_k) for vector in vectors]))
        hits = [next(found) if text else () for text in texts]
        spans = (Span("dense", time.perf_counter() - started),)
        return [SearchResult(one, spans=spans) for one in hits]

    async def passage(self, id_: str) -> Passage | None:
        """Raises `NoLookupError` for an index that was built without ids; also `IndexDamagedError`, like `search`."""
        self._require_intact()
        try:
            [found] = await self._in_threads([partial(self._passages.with_id, id_)])
        except FileNotFoundError:
            raise NoLookupError from None
        return found

    async def _in_threads(self, calls: Sequence[Callable[[], _T]]) -> list[_T]:
        """What the calls return, if the files are the same after it."""
        loop = asyncio.get_running_loop()
        try:
            found = await asyncio.gather(*(loop.run_in_executor(self._pool, call) for call in calls))
        except RuntimeError as error:  # closed
            raise RetrieverError(f"The index {self.path} could not be searched: {error}.") from error
        self._require_intact()
        return found

    def nearest(self, vector: Vectors, top_k: int) -> tuple[Ordinals, Vectors]:
        """Ordinals and cosines of the passages nearest to a vector of length 1, best first, in this thread."""
        if self._graph is None:
            return self._exact(vector, top_k)
        count = min(self.manifest.passages, max(_CANDIDATES * top_k, 64))
        candidates = np.sort(self._graph.search(vector, count, threads=1).keys.astype(np.int64))
        return _best(candidates, self._vectors.cosines(candidates, vector), top_k)

    def _exact(self, vector: Vectors, top_k: int) -> tuple[Ordinals, Vectors]:
        ordinals, scores = np.empty(0, np.int64), np.empty(0, np.float32)
        for start in range(0, self.manifest.passages, _BLOCK):
            here = self._vectors.cosines(slice(start, start + _BLOCK), vector)
            best, cosines = _best(np.arange(start, start + len(here)), here, top_k)
            ordinals, scores = np.concatenate([ordinals, best]), np.concatenate([scores, cosines])
        return _best(ordinals, scores, top_k)

    def _hits(self, vector: Vectors, top_k: int) -> tuple[Hit, ...]:
        ordinals, scores = self.nearest(vector, top_k)
        return tuple(
            Hit(self._passages[ordinal], score)
            for ordinal, score in zip(ordinals.tolist(), scores.tolist(), strict=True)
        )

    def _require_intact(self) -> None:
        if (name := self._files.changed()) is not None:
            raise IndexDamagedError(f"The index {self.path} is damaged ({name} was changed in the meantime): {REMEDY}")

    async def health(self) -> Health:
        self._require_intact()
        return Health(f"dense:{self.path}", self.manifest.passages, self.fingerprint)

    async def aclose(self) -> None:
        self._encode.close()
        self._pool.shutdown(wait=False, cancel_futures=True)


def _best(ordinals: Ordinals, scores: Vectors, top_k: int) -> tuple[Ordinals, Vectors]:
    """The `top_k` highest scores, equal ones in the order of their ordinals, which are given in groups that ascend."""
    scores = np.round(scores, _DECIMALS)
    if len(scores) > top_k:
        threshold = np.partition(scores, len(scores) - top_k)[len(scores) - top_k]
        kept = np.flatnonzero(scores >= threshold)
        ordinals, scores = ordinals[kept], scores[kept]
    order = np.lexsort((ordinals, -scores))[:top_k]
    return ordinals[order], scores[order]


def _opened(path: Path, manifest: DenseManifest, expansion: int) -> Any:
    """The graph, mapped into memory. Raises `InputError` if it is damaged."""
    opened = graph(manifest.dimensions)
    try:
        opened.view(str(path / GRAPH))
        found = len(opened)
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(f"The index {path} is damaged ({GRAPH}: {error}): {REMEDY}") from error
    if found != manifest.passages:
        raise InputError(f"The index {path} is damaged ({GRAPH} has {found:,} passages): {REMEDY}")
    opened.expansion_search = expansion
    return opened
