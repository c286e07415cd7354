"""A server of chat completions whose texts a function of the test writes."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


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
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=0, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    served.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    try:
        yield served
    finally:
        server.should_exit = True
        thread.join()
