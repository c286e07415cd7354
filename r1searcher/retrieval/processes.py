"""`r1s serve`: processes that share a port, are restarted if they die, and end within seconds.

Python runs one thread of a process at a time, so there is one process per core. Each has its own listening socket on
the same port (SO_REUSEPORT), so that the kernel distributes the connections: with one shared socket, a burst would go
to the process that wakes up first.
"""

import asyncio
import ipaddress
import multiprocessing
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from r1searcher.common.files import cause_of
from r1searcher.common.terminal import error_line, silence_native_output
from r1searcher.errors import InputError, R1Error, RetrieverError
from r1searcher.retrieval.base import Retriever
from r1searcher.retrieval.connections import Limits, limited
from r1searcher.retrieval.registry import settings_of
from r1searcher.retrieval.server import LOOPBACK_NAMES, Lifespan, host_name, make_app

MakeApp = Callable[[Retriever, frozenset[str] | None, Lifespan | None], ASGIApp]

_START_SECONDS = 120
_GRACE_SECONDS = 4
"""For requests in progress when the server is asked to end."""
_STOP_SECONDS = 7
"""For a process to end before it is killed: a search in damaged files may never end."""
_RESTART_PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class Place:
    """An address to listen on, resolved."""

    host: str
    family: socket.AddressFamily
    address: str
    port: int

    @property
    def is_loopback(self) -> bool:
        return ipaddress.ip_address(self.address.partition("%")[0]).is_loopback

    @property
    def url(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def listen(self, reuse_port: bool = True) -> socket.socket:
        dual = self.address == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(
            (self.address, self.port), family=self.family, backlog=1024, reuse_port=reuse_port, dualstack_ipv6=dual
        )


def resolve(host: str, port: int) -> Place:
    """Raises `InputError` for a host that is empty, unknown or not this machine's, and for a port in use."""
    if not host.strip():
        raise InputError("--host is empty: give the address to listen on, 127.0.0.1 or, for every interface, 0.0.0.0.")
    host = host.strip().removeprefix("[").removesuffix("]")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, ValueError) as error:  # ValueError: an invalid name, such as one with a NUL
        raise InputError(f"--host {host[:100]!r} is not an address or a name of this machine.") from error
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    place = Place(host, family, str(address[0]), port)
    try:
        with place.listen(reuse_port=False) as taken:  # a shared port does not report that it is in use
            return Place(host, family, place.address, int(taken.getsockname()[1]))
    except OSError as error:
        why = cause_of(error)
        raise InputError(f"Port {port} of {host} cannot be used ({why}): choose another --port or --host.") from error


def allowed_names(place: Place, names: list[str]) -> frozenset[str] | None:
    """The names that a server at `place` accepts; None (any) if others can reach it and no names are given.

    Raises `InputError` for an invalid name.
    """
    known = {name: host_name(f"[{name}]".encode() if ":" in name else name.encode()) for name in names}
    for name in names:
        if name != "*" and known[name] is None:
            raise InputError(f"--allowed-host {name[:100]!r} is not a host name: give it without scheme and port.")
    if "*" in names or (not names and not place.is_loopback):
        return None
    return LOOPBACK_NAMES | {place.host.lower(), *(name for name in known.values() if name)}


@dataclass(frozen=True, slots=True)
class Service:
    """What each process of a server needs; `fingerprint` is that of the checked retriever, `app` a module's function
    that makes the application."""

    url: str
    place: Place
    allowed_names: frozenset[str] | None
    fingerprint: str
    limits: Limits = field(default_factory=Limits)
    app: MakeApp = make_app


def serve(service: Service, workers: int, on_start: Callable[[str], None] = lambda address: None) -> None:
    """Serve until SIGINT or SIGTERM. `on_start` gets the address as soon as clients can connect.

    Raises `RetrieverError` if the processes do not start.
    """
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    holder = socket.socket(service.place.family)  # reserves the port while a process is replaced
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    processes: list[_Worker] = []
    try:
        holder.bind((service.place.address, service.place.port))
        processes += [_Worker(service) for _ in range(workers)]
        if _all_ready(processes, stopping):
            on_start(service.place.url)
            _watch(processes, service, stopping)
    finally:
        _stop(processes)
        holder.close()
        for number, handler in before.items():
            signal.signal(number, handler)


class _Worker:
    """One process, and the pipe on which it reports that it is ready."""

    def __init__(self, service: Service) -> None:
        context = multiprocessing.get_context("spawn")
        self.said, telling = context.Pipe(duplex=False)
        self.process: SpawnProcess = context.Process(target=_work, args=(service, telling), daemon=True)
        self.process.start()
        self.started_at = time.monotonic()
        telling.close()


def _all_ready(workers: list[_Worker], stopping: threading.Event) -> bool:
    deadline = time.monotonic() + _START_SECONDS
    for worker in workers:
        while not worker.said.poll(0.2):
            if stopping.is_set():
                return False
            if time.monotonic() > deadline:
                raise RetrieverError(f"The server's processes did not start within {_START_SECONDS} s.")
        try:
            why = worker.said.recv()
        except EOFError:
            worker.process.join(_STOP_SECONDS)
            why = f"a process ended with exit code {worker.process.exitcode}"
        if why is not None:
            raise RetrieverError(f"The server did not start: {why}")
    return True


def _watch(workers: list[_Worker], service: Service, stopping: threading.Event) -> None:
    """Restarts processes that die, each at most once per `_RESTART_PAUSE`."""
    while not stopping.is_set():
        wait([worker.process.sentinel for worker in workers], timeout=0.2)
        for place, worker in enumerate(workers):
            if worker.process.is_alive() or stopping.is_set():
                continue
            error_line(f"A server process ended ({_why(worker.process.exitcode)}) and is restarted.")
            if stopping.wait(max(0.0, _RESTART_PAUSE - (time.monotonic() - worker.started_at))):
                return
            workers[place] = _Worker(service)


def _why(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"signal {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"


def _stop(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.process.terminate()
    deadline = time.monotonic() + _STOP_SECONDS
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.said.close()


def _work(service: Service, telling: Connection) -> None:
    """One process: the application with its own retriever."""
    silence_native_output()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal signals all; the first process ends the others

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        _end_with_parent()
        telling.send(None)
        yield

    try:
        listening = service.place.listen()
        retriever = settings_of(service.url).open_in_server(service.fingerprint)
        config = uvicorn.Config(
            service.app(retriever, service.allowed_names, lifespan),
            http=limited(service.limits),
            ws="none",
            lifespan="on",
            log_level="error",
            access_log=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
    except (R1Error, OSError) as error:
        telling.send(str(error))
        sys.exit(1)
    _Server(config).run(sockets=[listening])


class _Server(uvicorn.Server):
    """uvicorn's server without a SIGINT handler: the parent process decides when it ends."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGTERM:
            super().handle_exit(sig, frame)


def _end_with_parent() -> None:
    """Ends the process when its parent is killed: otherwise it would keep the port."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        loop = asyncio.get_running_loop()

        def end() -> None:
            loop.remove_reader(parent.sentinel)
            signal.raise_signal(signal.SIGTERM)

        loop.add_reader(parent.sentinel, end)
