"""The interface of indexers, and the retriever URLs that can be filled."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from r1searcher.common.registry import Registry
from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError
from r1searcher.retrieval.indexing.manifest import IndexSettings
from r1searcher.retrieval.registry import kind_of

if TYPE_CHECKING:
    from r1searcher.retrieval.neural.encoder import EncoderSettings  # imports numpy


@dataclass(frozen=True, slots=True)
class DenseOptions:
    """How the vectors of a dense index are made and stored."""

    encoder: "EncoderSettings"
    vectors: Literal["float32", "float16", "int8"] = "float16"
    device: str = "cpu"
    batch_size: int = 64
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexOptions:
    """How an index is built. `overwrite` replaces a finished one, `restart` discards an interrupted build; `shards` is
    for engines that have them. With `dense`, a folder gets an index of vectors, for which `settings` do not matter, and
    Elasticsearch an index of terms and vectors."""

    settings: IndexSettings = field(default_factory=IndexSettings)
    overwrite: bool = False
    restart: bool = False
    shards: int = 1
    dense: DenseOptions | None = None


class Indexed(Protocol):
    """The label of a finished index."""

    @property
    def passages(self) -> int: ...


class Indexer(Protocol):
    """Writes passages to the index of one retriever URL. An entry of `INDEXERS` creates one from a URL and options."""

    @property
    def folder(self) -> Path | None:
        """The local folder that is written; None for a server."""
        ...

    def check(self) -> None:
        """Raises `InputError` if indexing is not possible; called before large downloads."""
        ...

    def index(self, passages: Iterable[Passage], on_progress: Callable[[int], None]) -> Indexed:
        """Index all passages, in order; `on_progress` gets how many were read so far.

        The index can be searched only when it is complete. An interrupted build of the same passages is resumed. Raises
        `InputError` for an unsuitable target or passages, `RetrieverError` or `FileError` if the work failed.
        """
        ...


INDEXERS: Registry[Callable[[str, IndexOptions], Indexer]] = Registry(
    "indexer",
    "r1searcher.indexers",
    {
        "bm25": "r1searcher.retrieval.indexing.bm25:Bm25Indexer",
        "dense": "r1searcher.retrieval.indexing.dense:DenseIndexer",
        "es": "r1searcher.retrieval.indexing.elasticsearch:ElasticsearchIndexer",
        "opensearch": "r1searcher.retrieval.indexing.elasticsearch:ElasticsearchIndexer",
    },
    Callable,
)
"""Indexers by the kind of their retriever."""


def open_indexer(url: str, options: IndexOptions) -> Indexer:
    """The indexer for a retriever URL. Raises `InputError` for one that cannot be filled."""
    kind = kind_of(url)
    if options.dense and kind not in ("bm25", "dense", "es"):
        raise InputError(f"{url} cannot be filled with vectors: give a folder or es://host:9200/name.")
    kind = "dense" if options.dense and kind == "bm25" else kind
    if kind not in INDEXERS:
        raise InputError(f"{url} cannot be filled: give a folder, es://host:9200/name or opensearch://host:9200/name.")
    return INDEXERS[kind](url, options)
