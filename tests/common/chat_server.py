"""A server of chat completions whose texts a function of the test writes."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.common.http_server import http_server


@dataclass
class ChatServer:
    """`bodies` has every request, in the order of arrival."""

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def chat_server(write: Callable[[dict[str, Any]], str | Response]) -> Iterator[ChatServer]:
    """A real HTTP server on a free port: `write` gets the body of each request, and returns a text or a response."""
    served = ChatServer()

    async def completions(request: Request) -> Response:
        body = json.loads(await request.body())
        served.bodies.append(body)
        said = write(body)
        if isinstance(said, Response):
            return said
        return JSONResponse({"choices": [{"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}]})

    async def models(request: Request) -> Response:
        return JSONResponse({"data": [{"id": "m"}]})

    routes = [Route("/v1/chat/completions", completions, methods=["POST"]), Route("/v1/models", models)]
    with http_server(routes) as address:
        served.url = f"{address}/v1"
        yield served
