"""Wrappers around retrievers, each a retriever itself."""
