"""Connection limits: a client that sends nothing, sends half a request or reads nothing is disconnected.

uvicorn limits only the time between two requests. A client that never sends one, or never reads its response,
would keep its connection forever, and each connection uses one of the process's file descriptors.
"""

import asyncio
import resource
from asyncio import TimerHandle
from dataclasses import dataclass
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_MAX_HEAD_BYTES = 64 << 10
_SPARE_DESCRIPTORS = 128
_MOST_CONNECTIONS = 10_000
_FULL = b'{"detail": "The server is at its limit of concurrent requests: try again."}'


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that a client may take, and connections per process (None: as many as file descriptors allow)."""

    silence: float = 20.0
    """Between two bytes of an incomplete request."""
    request: float = 120.0
    """For a complete request."""
    reading: float = 60.0
    """Between two reads of a response."""
    connections: int | None = None


def most_connections() -> int:
    """How many connections the file descriptors of this process allow, after raising their limit to the maximum."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_CONNECTIONS + 2 * _SPARE_DESCRIPTORS
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(16, min(_MOST_CONNECTIONS, soft - _SPARE_DESCRIPTORS))


def limited(limits: Limits) -> type[HttpToolsProtocol]:
    """uvicorn's protocol class with these limits, for one process."""
    most = limits.connections or most_connections()
    return type("LimitedConnection", (_Connection,), {"limits": limits, "most": most, "silent": {}})


class _Connection(HttpToolsProtocol):
    """At most `most` at a time: a new client replaces the one that has been silent longest."""

    limits: ClassVar[Limits]
    most: ClassVar[int]
    silent: ClassVar[dict["_Connection", None]]
    """Connections without a complete request in progress, longest silent first."""

    _deadline: TimerHandle | None = None  # of the request being sent
    _silence: TimerHandle | None = None  # until the next byte
    _reading: TimerHandle | None = None  # until the client reads more of its response
    _head_bytes = 0
    _head_whole = False
    _whole = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most and not self._drop_longest_silent():
            head = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-type: application/json\r\n"
            transport.write(head + b"content-length: %d\r\n\r\n" % len(_FULL) + _FULL)
            transport.close()
            return
        self._wait_for_request()

    def _drop_longest_silent(self) -> bool:
        oldest = next(iter(self.silent), None)
        if oldest is None:
            return False
        oldest._drop()
        return True

    def data_received(self, data: bytes) -> None:
        if not self._head_whole:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > _MAX_HEAD_BYTES and not self._head_whole:
            self._drop()
        elif not self._whole and not self.transport.is_closing():
            self._wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        _cancel(self._reading)
        super().connection_lost(exc)

    # httptools calls these while it parses input.
    def on_message_begin(self) -> None:
        self._whole = self._head_whole = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head_whole = True
        self._head_bytes = 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._whole = True
        self._stop_waiting()
        super().on_message_complete()

    # asyncio calls these when the client reads its response slower than it is written, and when it catches up.
    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_for_reading()

    def resume_writing(self) -> None:
        _cancel(self._reading)
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """No further request arrived. `close` waits until the client has read the response, possibly forever."""
        super().timeout_keep_alive_handler()
        self._wait_for_reading()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing():
            self.silent[self] = None

    def shutdown(self) -> None:
        """On shutdown the server does not wait for the rest of a request."""
        if self._whole:
            super().shutdown()
        else:
            self._drop()

    def _wait_for_request(self) -> None:
        self.silent.pop(self, None)
        self.silent[self] = None
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.limits.request, self._drop)
        _cancel(self._silence)
        self._silence = self.loop.call_later(self.limits.silence, self._drop)

    def _wait_for_reading(self) -> None:
        _cancel(self._reading)
        left = self.transport.get_write_buffer_size()
        self._reading = self.loop.call_later(self.limits.reading, self._drop_unless_read, left)

    def _drop_unless_read(self, left: int) -> None:
        if self.transport.get_write_buffer_size() < left:
            self._wait_for_reading()
        else:
            self._drop()

    def _stop_waiting(self) -> None:
        self.silent.pop(self, None)
        _cancel(self._deadline)
        _cancel(self._silence)
        self._deadline = self._silence = None

    def _drop(self) -> None:
        self._stop_waiting()
        self.transport.abort()


def _cancel(timer: TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
