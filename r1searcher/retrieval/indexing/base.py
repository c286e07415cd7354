"""What fills an index, whatever engine it is for; and which retriever URLs can be filled."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from r1searcher.common.registry import Registry
from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError
from r1searcher.retrieval.indexing.manifest import IndexSettings, Manifest
from r1searcher.retrieval.registry import kind_of


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexOptions:
    """How an index is built. `overwrite` replaces a finished one, `restart` throws away an interrupted build; `shards`
    is for engines that have them."""

    settings: IndexSettings = field(default_factory=IndexSettings)
    overwrite: bool = False
    restart: bool = False
    shards: int = 1


class Indexer(Protocol):
    """Puts passages where one retriever URL finds them. An entry of `INDEXERS` makes one of a URL and options."""

    @property
    def folder(self) -> Path | None:
        """The folder of this machine that is written; None for a server."""
        ...

    def check(self) -> None:
        """Raises `InputError` where nothing could be indexed; asked before anything large is fetched."""
        ...

    def index(self, passages: Iterable[Passage], on_progress: Callable[[int], None]) -> Manifest:
        """Index all passages, in order; `on_progress` gets how many were read so far.

        The URL answers only when all of them are in. An interrupted build of the same passages goes on. Raises
        `InputError` for a target or passages that do not fit, `RetrieverError` or `FileError` where the work failed.
        """
        ...


INDEXERS: Registry[Callable[[str, IndexOptions], Indexer]] = Registry(
    "indexer",
    "r1searcher.indexers",
    {
        "bm25": "r1searcher.retrieval.indexing.bm25:Bm25Indexer",
        "es": "r1searcher.retrieval.indexing.elasticsearch:ElasticsearchIndexer",
    },
)
"""Indexers by the kind of their retriever."""


def open_indexer(url: str, options: IndexOptions) -> Indexer:
    """The indexer for a retriever URL. Raises `InputError` for one that cannot be filled."""
    kind = kind_of(url)
    if kind not in INDEXERS:
        raise InputError(f"{url} cannot be filled: give a folder, or es://host:9200/name.")
    return INDEXERS[kind](url, options)
