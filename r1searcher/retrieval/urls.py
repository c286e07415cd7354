"""Retriever URLs, the same in every command and setting."""

from pathlib import Path

from r1searcher.common.http import shown_url
from r1searcher.errors import InputError
from r1searcher.retrieval.base import Retriever


def is_embedded(url: str) -> bool:
    """Whether a URL names an index in a folder of this machine."""
    return _scheme(url) == "file"


def _scheme(url: str) -> str:
    scheme = url.partition(":")[0] if ":" in url else "file"
    return scheme if scheme in ("es", "es+https", "http", "https") or "://" in url else "file"


def open_retriever(url: str, *, thorough: bool = False) -> Retriever:
    """The retriever behind a URL.

    - `index/` or `file:index/`: an embedded index;
    - `es://host:9200/name`, `es+https://…`: Elasticsearch, filled by `r1s index-corpus`;
    - `http://host:8000/retrieve`: a server that speaks Search-R1's protocol;
    - `http://host:8000/queries`: one that speaks R1-Searcher's.

    `thorough` reads every file of an embedded index to compare its checksum. Raises `InputError` for a URL of no such
    form and for an embedded index that is missing or damaged.
    """
    scheme = _scheme(url)
    if scheme in ("es", "es+https"):
        from r1searcher.retrieval.elastic import ElasticsearchIndex

        return ElasticsearchIndex(url)
    if scheme in ("http", "https"):
        from r1searcher.retrieval.remote import RemoteRetriever

        return RemoteRetriever(url)
    if scheme != "file":
        raise InputError(
            f"{shown_url(url)} is not a retriever: give a folder, es://host:9200/name or http://host:8000/retrieve"
        )
    from r1searcher.retrieval.embedded import EmbeddedIndex

    return EmbeddedIndex(Path(url.removeprefix("file:")), thorough=thorough)
