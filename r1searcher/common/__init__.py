"""Utilities for every package: files, JSON, HTTP, terminal output. Imports nothing from r1searcher except `errors`."""
