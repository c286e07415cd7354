"""Search engines behind one small asynchronous interface."""

from r1searcher.retrieval.urls import open_retriever

__all__ = ["open_retriever"]
