"""Any retriever as an HTTP server that speaks the protocols in use.

    POST /retrieve   Search-R1: {"queries", "topk", "return_scores"} -> {"result": [[{"document", "score"}, …], …]}
    POST /queries    R1-Searcher: {"queries", "k"} -> {"queries", "answers": [["17\\tTitle: X Text: …", …], …]}
    GET  /health     {"name", "passages", "settings_hash"}

Queries that arrive at the same time are searched together. A request that is wrong gets a 4xx and a search engine that
is away a 503, each with a sentence under `detail`.
"""

import asyncio
import json
import multiprocessing
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send
from uvicorn.supervisors import Multiprocess

from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError, R1Error, RetrieverError
from r1searcher.retrieval.base import MAX_QUERY_CHARS, Hit, Retriever, clean_query
from r1searcher.retrieval.urls import open_retriever

DEFAULT_TOP_K = 3
MAX_TOP_K = 1000
MAX_QUERIES = 10_000
MAX_BODY_BYTES = 32 << 20
_BATCH = 64
_START_SECONDS = 120


class _RefusedError(Exception):
    """A request that is wrong: the status and the sentence to answer with."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def make_app(retriever: Retriever) -> Router:
    """The server as an ASGI application, which closes the retriever when it ends.

    A router alone: the layers that a whole application has around it take a tenth of a request's time.
    """
    batcher = _Batcher(retriever)

    async def retrieve(request: Request) -> Mapping[str, Any]:
        body = await _body(request)
        queries, top_k = _queries(body), _top_k(body, "topk")
        with_scores = body.get("return_scores", False)
        if not isinstance(with_scores, bool):
            raise _RefusedError(422, "`return_scores` must be true or false.")
        found = await batcher.search(queries, top_k)
        return {"result": [[_search_r1(hit, with_scores) for hit in hits] for hits in found]}

    async def queries(request: Request) -> Mapping[str, Any]:
        body = await _body(request)
        asked, top_k = _queries(body), _top_k(body, "k")
        found = await batcher.search(asked, top_k)
        return {"queries": asked, "answers": [[_r1_searcher(hit.passage) for hit in hits] for hits in found]}

    async def health(request: Request) -> Mapping[str, Any]:
        said = await retriever.health()
        return {"name": said.name, "passages": said.passages, "settings_hash": said.settings_hash}

    @asynccontextmanager
    async def lifespan(app: Router) -> AsyncIterator[None]:
        _end_with_parent()
        yield
        await retriever.aclose()

    return Router(
        [
            Route("/retrieve", _Endpoint(retrieve), methods=["POST"]),
            Route("/queries", _Endpoint(queries), methods=["POST"]),
            Route("/health", _Endpoint(health), methods=["GET"]),
        ],
        lifespan=lifespan,
    )


class _Endpoint:
    """Answers a request with what `answer` makes of it, as JSON, and its errors with a sentence."""

    def __init__(self, answer: Callable[[Request], Awaitable[Mapping[str, Any]]]) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        content: Mapping[str, Any]
        try:
            status, content = 200, await self._answer(Request(scope, receive))
        except ClientDisconnect:
            return
        except _RefusedError as error:
            status, content = error.status, {"detail": str(error)}
        except R1Error as error:
            status, content = 503, {"detail": str(error)}
        await Response(json.dumps(content), status, media_type="application/json")(scope, receive, send)


class _Batcher:
    """Searches queries of different requests together: those that arrive while a search runs make up the next one."""

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever
        self._waiting: list[tuple[str, int, asyncio.Future[list[Hit]]]] = []
        self._workers: set[asyncio.Task[None] | None] = set()
        self._most_workers = os.cpu_count() or 1

    async def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        loop = asyncio.get_running_loop()
        answers: list[asyncio.Future[list[Hit]]] = [loop.create_future() for _ in queries]
        self._waiting += zip(queries, [top_k] * len(queries), answers, strict=True)
        if len(self._workers) < self._most_workers:
            self._workers.add(asyncio.create_task(self._work()))
        return await asyncio.gather(*answers)

    async def _work(self) -> None:
        while self._waiting:
            top_k = self._waiting[0][1]
            batch = [entry for entry in self._waiting[:_BATCH] if entry[1] == top_k]
            self._waiting = [entry for entry in self._waiting[:_BATCH] if entry[1] != top_k] + self._waiting[_BATCH:]
            try:
                found = await self._retriever.search([query for query, _, _ in batch], top_k)
            except Exception as error:
                for _, _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
            else:
                for (_, _, answer), hits in zip(batch, found, strict=True):
                    if not answer.done():  # its client may have hung up
                        answer.set_result(hits)
        # Here and not in a callback, which comes later: queries that arrive in between would wait for nobody.
        self._workers.discard(asyncio.current_task())


async def _body(request: Request) -> dict[str, Any]:
    content = b""
    async for piece in request.stream():
        content += piece
        if len(content) > MAX_BODY_BYTES:
            raise _RefusedError(413, f"The request is larger than {MAX_BODY_BYTES >> 20} MB.")
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _RefusedError(400, f"The request is not JSON: {error}.") from error
    if not isinstance(body, dict):
        raise _RefusedError(422, 'The request must be an object, for example {"queries": ["capital of Norway"]}.')
    return body


def _queries(body: dict[str, Any]) -> list[str]:
    queries = body.get("queries")
    if not isinstance(queries, list) or not all(isinstance(query, str) for query in queries):
        raise _RefusedError(422, "`queries` must be a list of texts.")
    if len(queries) > MAX_QUERIES:
        raise _RefusedError(413, f"{len(queries):,} queries in one request: at most {MAX_QUERIES:,}.")
    for place, query in enumerate(queries):
        if not query.strip():
            raise _RefusedError(422, f"Query {place} is empty.")
        if len(query) > MAX_QUERY_CHARS:
            raise _RefusedError(413, f"Query {place} has {len(query):,} characters: at most {MAX_QUERY_CHARS:,}.")
    return [clean_query(query) for query in queries]


def _top_k(body: dict[str, Any], key: str) -> int:
    top_k = body.get(key)
    if top_k is None:
        return DEFAULT_TOP_K
    if isinstance(top_k, bool) or not isinstance(top_k, int) or not 1 <= top_k <= MAX_TOP_K:
        raise _RefusedError(422, f"`{key}` must be a whole number between 1 and {MAX_TOP_K:,}.")
    return top_k


def _search_r1(hit: Hit, with_score: bool) -> dict[str, Any]:
    document = {"id": hit.passage.id, "contents": f'"{hit.passage.title}"\n{hit.passage.text}'}
    return {"document": document, "score": hit.score} if with_score else document


def _r1_searcher(passage: Passage) -> str:
    return f"{passage.id}\tTitle: {passage.title} Text: {passage.text}"


def serve(
    url: str, host: str, port: int, *, workers: int = 1, on_start: Callable[[str], None] = lambda address: None
) -> None:
    """Serve the retriever that `url` names until interrupted; raises `InputError` for a port in use.

    Python runs one thread of a process at a time, so `workers` processes share the port. `on_start` gets the address as
    soon as clients may call; port 0 takes a free one.
    """
    config = uvicorn.Config(
        partial(_app_of, url),
        factory=True,
        workers=workers,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        timeout_worker_healthcheck=60,  # beside a training a healthy process may not get its turn for seconds
    )
    port = _free_port(host, port)
    address = f"http://{host}:{port}"
    if workers > 1:
        _Workers(config, host, port, lambda: on_start(address)).run()
    else:
        with _listen(host, port) as listening:
            on_start(address)
            uvicorn.Server(config).run(sockets=[listening])


def _free_port(host: str, port: int) -> int:
    try:
        with socket.create_server((host, port)) as taken:  # alone: ports that are shared don't say that they are in use
            return int(taken.getsockname()[1])
    except OSError as error:
        raise InputError(f"Port {port} of {host} cannot be used ({error.strerror}): choose another --port.") from error


def _listen(host: str, port: int) -> socket.socket:
    return socket.create_server((host, port), backlog=1024, reuse_port=True)


class _Port(socket.socket):
    """A port that becomes a listening socket in each process it is sent to, so that the kernel deals the connections
    out. A burst of them at one socket of all would go to whichever process wakes up first."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self._place = (host, port)

    def __reduce__(self) -> Any:
        return _listen, self._place


class _Workers(Multiprocess):
    """uvicorn's processes, started anew where they die; `on_start` is called when all of them answer."""

    def __init__(self, config: uvicorn.Config, host: str, port: int, on_start: Callable[[], None]) -> None:
        super().__init__(config, [_Port(host, port)])
        self._on_start = on_start

    def init_processes(self) -> None:
        super().init_processes()
        if all(process.wait_until_ready(_START_SECONDS, self.should_exit) for process in self.processes):
            self._on_start()
        elif not self.signal_queue:
            self.terminate_all()
            raise RetrieverError("The server's processes did not start; --workers 1 shows why.")


def _end_with_parent() -> None:
    """Has a process of `_Workers` end when its parent is killed: it would hold the port until somebody finds it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        loop = asyncio.get_running_loop()

        def end() -> None:
            loop.remove_reader(parent.sentinel)
            signal.raise_signal(signal.SIGTERM)

        loop.add_reader(parent.sentinel, end)


def _app_of(url: str) -> Router:
    """The application of one process, with a retriever of its own."""
    return make_app(open_retriever(url))
