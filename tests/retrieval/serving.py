"""A retriever as tests ask it: through our interface, and through `r1s serve` in a process of its own."""

import asyncio
import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from r1searcher.retrieval import open_retriever
from r1searcher.retrieval.base import Hit


@contextmanager
def started(retriever: str, *options: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A server on a free port that answers, and its address. It is the caller's to end."""
    command = [sys.executable, "-m", "r1searcher.cli", "serve", retriever, "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        while "/retrieve" not in said:
            said = process.stderr.readline()
            assert said, "the server ended before it answered"
        try:
            yield process, said.partition("/retrieve")[0]
        except BaseException:  # or its end would be waited for
            process.kill()
            raise


@contextmanager
def serving(retriever: str) -> Iterator[str]:
    """The address of a server of that retriever, on a free port; Ctrl-C ends it."""
    with started(retriever) as (process, address):
        try:
            yield address
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(30) in (0, 130, -signal.SIGINT)


def post(url: str, body: object, seconds: float = 60) -> Any:
    """The JSON answer to `body`, which is sent as JSON unless it is bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=seconds) as answer:
        return json.load(answer)


def search(url: str, queries: list[str], top_k: int = 5) -> list[list[Hit]]:
    """Through the retriever that the URL names."""

    async def run() -> list[list[Hit]]:
        retriever = open_retriever(url)
        try:
            return await retriever.search(queries, top_k)
        finally:
            await retriever.aclose()

    return asyncio.run(run())
