"""Searches for tests: through our interface, and through `r1s serve` in a separate process."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from r1searcher.retrieval import open_retriever
from r1searcher.retrieval.base import Hit, hits_of
from tests.processes import tree

SERVICE = """
import sys
from r1searcher.retrieval.connections import Limits
from r1searcher.retrieval.processes import LOOPBACK_NAMES, Service, resolve, serve

if __name__ == "__main__":
    service = Service(sys.argv[1], resolve("127.0.0.1", 0), LOOPBACK_NAMES, sys.argv[2], Limits(*eval(sys.argv[3])))
    serve(service, 1, lambda address: print(f"{address}/retrieve", file=sys.stderr, flush=True))
"""


def started(
    retriever: str, *options: str, before: Sequence[str] = (), ready: str = "/retrieve"
) -> AbstractContextManager[tuple["subprocess.Popen[str]", str]]:
    """A ready `r1s serve` on a free port, and its address. It ends with the context, if the caller has not ended it.

    `before` is put in front of the command, such as a limit set by a shell; `ready` follows the address that it
    announces.
    """
    command = [sys.executable, "-m", "r1searcher.cli", "serve", retriever, "--port", "0", *options]
    return _started([*before, *command], ready)


def started_service(
    retriever: str, fingerprint: str = "", limits: tuple[float, ...] = ()
) -> AbstractContextManager[tuple["subprocess.Popen[str]", str]]:
    """The same without the command line: with one process, unchecked, and with other limits for its clients."""
    return _started([sys.executable, "-c", SERVICE, retriever, fingerprint, repr(limits)])


@contextmanager
def _started(command: Sequence[str], ready: str = "/retrieve") -> Iterator[tuple["subprocess.Popen[str]", str]]:
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        while ready not in said:
            said = process.stderr.readline()
            assert said, "the server ended before it answered"
        threading.Thread(target=process.stderr.read, daemon=True).start()  # or a full pipe would hold it up
        try:
            yield process, said.partition(ready)[0]
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    raise


def workers(server: int) -> list[int]:
    """The processes of an `r1s serve` that answer requests, by the id of the process that started them."""
    return [pid for pid in tree(server) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


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
            return [list(hits) for hits in await hits_of(retriever, queries, top_k)]
        finally:
            await retriever.aclose()

    return asyncio.run(run())
