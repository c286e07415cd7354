"""Retriever URLs, the same in every command and setting."""

from pathlib import Path

from r1searcher.errors import InputError
from r1searcher.retrieval.base import Retriever


def open_retriever(url: str) -> Retriever:
    """The retriever behind a URL.

    `index/` or `file:index/`: an embedded index. Raises `InputError` for anything that is not there.
    """
    scheme, colon, rest = url.partition(":")
    if colon and scheme in ("es", "es+https", "http", "https"):
        raise InputError(f"{url}: this version opens embedded indexes only.")
    if colon and scheme != "file" and "//" in rest:
        raise InputError(f"{url} is no retriever: give a folder, es://host:9200/name or http://host:8000/retrieve.")
    from r1searcher.retrieval.embedded import EmbeddedIndex

    return EmbeddedIndex(Path(rest if scheme == "file" and colon else url))
