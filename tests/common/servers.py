"""Local servers that misbehave like real ones."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

Behavior = Callable[[socket.socket, bytes], None]


@dataclass
class Raw:
    """A server that sends raw bytes. `requests` has every head and body received."""

    behave: Behavior
    url: str = ""
    requests: list[bytes] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def with_key(self, secret: str) -> int:
        return sum(secret.encode() in request for request in self.requests)


@contextmanager
def raw_server(behave: Behavior, host: str = "127.0.0.1") -> Iterator[Raw]:
    """One connection per request: `behave` writes the whole response, then the connection is closed."""
    listener = socket.create_server((host, 0), backlog=128)
    server = Raw(behave)
    server.url = f"http://{host}:{listener.getsockname()[1]}"

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                server.requests.append(request := _received(connection))
                server.behave(connection, request)
                connection.shutdown(socket.SHUT_WR)
            except OSError:  # the client has disconnected
                pass

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server
    finally:
        server.stop.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _received(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += (piece := connection.recv(1 << 16))
        if not piece or data[0] == 0x16:  # the end, or TLS
            return data
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0
    )
    while len(body) < length and (piece := connection.recv(1 << 16)):
        body += piece
    return head + b"\r\n\r\n" + body


def answer(body: bytes, status: str = "200 OK", *headers: str) -> Behavior:
    """A complete response with its length."""
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""])

    def behave(connection: socket.socket, request: bytes) -> None:
        connection.sendall(head.encode("latin-1") + (b"" if request.startswith(b"HEAD") else body))

    return behave


def redirect(status: int, to: str) -> Behavior:
    return answer(b"", f"{status} Elsewhere", f"Location: {to}")
