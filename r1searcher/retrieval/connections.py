"""Connections that end: a client that says nothing, sends half a request or reads nothing is dropped.

uvicorn has a limit for the time between two requests only. A client that never sends one, or never reads its answer,
would keep its connection for ever, and each connection takes one of the process's file descriptors.
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
_FULL = b'{"detail": "The server has as many requests at work as it can take: try again."}'


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that a client may take, and connections per process (None: as many as its file descriptors allow)."""

    silence: float = 20.0
    """Without a byte of a request that is not complete."""
    request: float = 120.0
    """For a whole request."""
    reading: float = 60.0
    """Without taking more of an answer."""
    connections: int | None = None


def most_connections() -> int:
    """How many connections the file descriptors of this process allow, after raising its limit as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_CONNECTIONS + 2 * _SPARE_DESCRIPTORS
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(16, min(_MOST_CONNECTIONS, soft - _SPARE_DESCRIPTORS))


def limited(limits: Limits) -> type[HttpToolsProtocol]:
    """uvicorn's protocol with these limits, for one process."""
    most = limits.connections or most_connections()
    return type("LimitedConnection", (_Connection,), {"limits": limits, "most": most, "silent": {}})


class _Connection(HttpToolsProtocol):
    """At most `most` at a time: a new client takes the place of the one that has been silent longest."""

    limits: ClassVar[Limits]
    most: ClassVar[int]
    silent: ClassVar[dict["_Connection", None]]
    """Connections without a complete request at work; the one silent longest comes first."""

    _deadline: TimerHandle | None = None  # of the request that is being sent
    _patience: TimerHandle | None = None  # until the next byte
    _reading: TimerHandle | None = None  # until the client takes more of its answer
    _head_bytes = 0
    _head_whole = False
    _whole = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most and not self._make_room():
            head = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-type: application/json\r\n"
            transport.write(head + b"content-length: %d\r\n\r\n" % len(_FULL) + _FULL)
            transport.close()
            return
        self._wait_for_request()

    def _make_room(self) -> bool:
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

    # httptools calls these while it parses what came.
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

    # asyncio calls these when the client does not take its answer as fast as it is written, and when it does again.
    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_for_reading()

    def resume_writing(self) -> None:
        _cancel(self._reading)
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """No further request came. `close` waits for the rest of the answer to be taken, for ever if need be."""
        super().timeout_keep_alive_handler()
        self._wait_for_reading()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing():
            self.silent[self] = None

    def shutdown(self) -> None:
        """The server ends: it does not wait for the rest of a request."""
        if self._whole:
            super().shutdown()
        else:
            self._drop()

    def _wait_for_request(self) -> None:
        self.silent.pop(self, None)
        self.silent[self] = None
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.limits.request, self._drop)
        _cancel(self._patience)
        self._patience = self.loop.call_later(self.limits.silence, self._drop)

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
        _cancel(self._patience)
        self._deadline = self._patience = None

    def _drop(self) -> None:
        self._stop_waiting()
        self.transport.abort()


def _cancel(timer: TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
