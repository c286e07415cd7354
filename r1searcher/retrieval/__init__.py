"""Search engines with one small asynchronous interface."""

from r1searcher.retrieval.registry import open_retriever

__all__ = ["open_retriever"]
