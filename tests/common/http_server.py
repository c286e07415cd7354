"""A real HTTP server in a thread, for clients of other services."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.routing import BaseRoute


@contextmanager
def http_server(
    routes: Sequence[BaseRoute], host: str = "127.0.0.1", certificate: Path | None = None, log_level: str = "error"
) -> Iterator[str]:
    """Its address, on a free port; https with a certificate, a file that has its key too."""
    app = Starlette(routes=routes)
    config = uvicorn.Config(app, host=host, port=0, log_level=log_level, access_log=False, ssl_certfile=certificate)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"{'https' if certificate else 'http'}://{host}:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
