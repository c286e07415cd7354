"""The command line. A command parses its options, calls one function and prints; heavy imports stay inside it."""

from r1searcher.cli.app import app, main

__all__ = ["app", "main"]
