"""Serves any retriever over HTTP in the common protocols; `protocols.py` has their requests and responses.

    POST /retrieve   {"queries" or "query", "topk", "return_scores"} -> {"result": [[…], …]}: Search-R1, SkyRL…
    POST /access     {"urls"} -> {"result": [{"contents", …} or null, …]}: ASearcher
    POST /queries    {"queries", "k"} -> {"queries", "answers": [["17\\tTitle: X Text: …", …], …]}: R1-Searcher
    GET  /health     {"name", "passages", "fingerprint"}

Queries that arrive at the same time are searched together. An invalid request gets a 4xx, an unavailable search engine
or a damaged index a 503, each with a sentence in `detail`. These protocols have no errors of single queries: one query
that fails makes its request fail, with 503 where a retry may help and 422 where it will not.
"""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import lru_cache
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from r1searcher.common.files import parse_json
from r1searcher.errors import R1Error, RetrieverError
from r1searcher.retrieval.base import MAX_TOP_K, Hit, Retriever, SearchResult, is_outage
from r1searcher.retrieval.batching import Batcher
from r1searcher.retrieval.protocols import (
    AccessRequest,
    BadRequest,
    QueriesRequest,
    SearchRequest,
    page,
    page_query,
    r1_searcher,
    require_affordable,
    search_r1,
    validated,
)

MAX_BODY_BYTES = 16 << 20
MAX_ANSWER_BYTES = 200 << 20
_QUERIES_AT_ONCE, _PASSAGES_AT_ONCE = 256, 10_000
"""How much of one request is searched at a time: a large one must not block others or exhaust memory."""

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]/@\s]+))(?::\d{1,5})?", re.ASCII)
_log = logging.getLogger("uvicorn.error")

_Pieces = list[bytes]
_Answer = Callable[[Request], Awaitable[_Pieces]]
Lifespan = Callable[[Any], AbstractAsyncContextManager[None]]


def make_app(
    retriever: Retriever,
    allowed_hosts: frozenset[str] | None = LOOPBACK_NAMES,
    lifespan: Lifespan | None = None,
) -> "App":
    """The server as an ASGI application, which closes the retriever when it ends.

    `allowed_hosts` are the names that clients may use for it (in `Host`, without port); None allows any. Other names
    are rejected: a web page could make its own name resolve to this machine and read the responses.
    """
    batcher = Batcher(retriever)

    async def retrieve(request: Request) -> _Pieces:
        asked = validated(SearchRequest, await _body(request))

        def shaped(hits: Sequence[Hit]) -> Any:
            return search_r1(hits, asked.return_scores)

        return await _answers(batcher, asked.queries, asked.topk, shaped, {}, "result")

    async def queries(request: Request) -> _Pieces:
        asked = validated(QueriesRequest, await _body(request))
        return await _answers(batcher, asked.queries, asked.k, r1_searcher, {"queries": asked.queries}, "answers")

    async def access(request: Request) -> _Pieces:
        asked = validated(AccessRequest, await _body(request))
        urls = iter(asked.urls)

        def shaped(hits: Sequence[Hit]) -> Any:
            return page(next(urls), hits)

        return await _answers(batcher, list(map(page_query, asked.urls)), MAX_TOP_K, shaped, {}, "result")

    async def health(request: Request) -> _Pieces:
        said = await retriever.health()
        return _json({"name": said.name, "passages": said.passages, "fingerprint": said.fingerprint})

    endpoints = [("/retrieve", "POST", retrieve), ("/queries", "POST", queries), ("/access", "POST", access)]
    endpoints.append(("/health", "GET", health))
    routes = [Route(path, _Endpoint(answer, method)) for path, method, answer in endpoints]
    router = Router(routes, default=_Endpoint(_nowhere, None), lifespan=closing(retriever, lifespan))
    return App(router, allowed_hosts)


def closing(retriever: Retriever, *lifespans: Lifespan | None) -> Lifespan:
    """The lifespans of an application one inside the other, around the use of a retriever, which is closed last."""

    @asynccontextmanager
    async def all_of_them(app: Any) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(retriever.aclose)
            for lifespan in lifespans:
                if lifespan is not None:
                    await stack.enter_async_context(lifespan(app))
            yield

    return all_of_them


class App:
    """An application that accepts only its own host names.

    Around a router: the middleware of a full application takes a tenth of a request's time.
    """

    def __init__(self, router: ASGIApp, allowed_hosts: frozenset[str] | None) -> None:
        self._router = router
        self._allowed_hosts = allowed_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._allowed_hosts is not None:
            for name, value in scope["headers"]:
                if name == b"host" and host_name(value) not in self._allowed_hosts:
                    detail = (
                        f"This server does not accept the host name {value.decode('latin-1')[:200]!r}: "
                        "to allow it, start the server with --allowed-host NAME."
                    )
                    return await refuse(421, detail, scope, receive, send)
        await self._router(scope, receive, send)


@lru_cache(1024)
def host_name(host: bytes) -> str | None:
    """The name in a `Host` header: without port, brackets and final dot, in lower case; None if it is malformed."""
    match = _HOST.fullmatch(host.decode("latin-1").strip().lower())
    return (match[1] or match[2].removesuffix(".")) if match else None


class _Endpoint:
    """Responds with the JSON that `answer` returns, or with a sentence for its errors."""

    def __init__(self, answer: _Answer, method: str | None) -> None:
        self._answer = answer
        self._method = method

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            request = Request(scope, receive)
            if self._method not in (None, request.method):
                raise BadRequest(405, f"{request.url.path} accepts {self._method} requests only.")
            status, pieces = 200, await self._answer(request)
        except ClientDisconnect:
            return
        except BadRequest as error:
            status, pieces = error.status, _json({"detail": str(error)})
        except R1Error as error:
            status, pieces = 503, _json({"detail": str(error)})
        except Exception:
            _log.exception("A request failed: this is a bug in r1s.")
            status, pieces = 500, _json({"detail": "The server failed: this is a bug, see the server's terminal."})
        await _respond(status, pieces, scope, receive, send)


async def _nowhere(request: Request) -> _Pieces:
    raise BadRequest(404, "There is nothing at this path: use POST /retrieve, /queries or /access, or GET /health.")


async def refuse(status: int, detail: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Responds with a sentence."""
    await _respond(status, _json({"detail": detail}), scope, receive, send)


async def _respond(status: int, pieces: _Pieces, scope: Scope, receive: Receive, send: Send) -> None:
    if len(pieces) == 1:
        return await Response(pieces[0], status, media_type="application/json")(scope, receive, send)
    length = str(sum(map(len, pieces))).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", length)]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    pieces.reverse()
    while pieces:
        await send({"type": "http.response.body", "body": pieces.pop(), "more_body": bool(pieces)})


def _json(content: Mapping[str, Any]) -> _Pieces:
    return [json.dumps(content).encode()]


async def _answers(
    batcher: Batcher,
    queries: Sequence[str],
    top_k: int,
    shaped: Callable[[Sequence[Hit]], Any],
    fields: dict[str, Any],
    key: str,
) -> _Pieces:
    """The JSON object `fields` plus, under `key`, a list of `shaped` of each query's hits.

    It is encoded as the hits arrive, so that only the response of a large request is kept in memory.
    """
    require_affordable(len(queries), top_k)
    head, end = json.dumps({**fields, key: []}).encode()[:-2], b"]}"
    pieces, size = [], 0
    at_once = min(_QUERIES_AT_ONCE, _PASSAGES_AT_ONCE // top_k)
    for start in range(0, len(queries), at_once):
        some = queries[start : start + at_once]
        asked = [query for query in some if query.strip()]  # empty queries get an empty list, without a search
        found = iter(await _results(batcher, asked, top_k))
        rows = json.dumps([shaped(_hits(query, next(found)) if query.strip() else ()) for query in some])[1:-1]
        pieces.append((b", " if start else head) + rows.encode())
        size += len(pieces[-1])
        if size > MAX_ANSWER_BYTES:
            raise BadRequest(
                413,
                f"The response is larger than {MAX_ANSWER_BYTES >> 20} MB after {start + len(some):,} of "
                f"{len(queries):,} queries: send fewer queries at once.",
            )
        if start + at_once < len(queries):
            await asyncio.sleep(0)  # let other requests run, even if queries are empty
    pieces = pieces or [head]
    pieces[-1] += end
    return pieces


async def _results(batcher: Batcher, queries: Sequence[str], top_k: int) -> list[SearchResult]:
    try:
        return await batcher.search(queries, top_k) if queries else []
    except RetrieverError as error:
        return [SearchResult(error=error)] * len(queries)


def _hits(query: str, result: SearchResult) -> Sequence[Hit]:
    """The hits of one query. Raises its error, as a bad request where the same query will always fail."""
    if result.error is None or is_outage(result.error):
        return result.require_hits()
    raise BadRequest(422, f"The search for {query[:80]!r} failed: {result.error}")


async def _body(request: Request) -> Any:
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > MAX_BODY_BYTES:
            raise BadRequest(413, f"The request is larger than {MAX_BODY_BYTES >> 20} MB.")
    try:
        return parse_json(bytes(content))
    except ValueError as error:
        raise BadRequest(400, f"The request cannot be read: {error}.") from error
