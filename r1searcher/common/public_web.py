"""Fetches pages of the public web, and of nothing else.

A search result may lead anywhere: to this machine, to a cloud's metadata service, to a router. So each host name is
resolved here, every address that it has must be public, and the connection is made to one of the addresses that were
checked. That holds for every redirect too. Proxy variables are not used.
"""

import asyncio
import ipaddress
import re
import ssl
import zlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urljoin, urlsplit

from r1searcher.errors import ServiceError

if TYPE_CHECKING:
    import httpcore

AGENT = "r1searcher"
"""The name under which robots.txt may exclude us."""

_REDIRECTS = 5
_PORTS = {"http": 80, "https": 443}
_BAD = re.compile(r"[\x00-\x20\x7f\\]")
_CHARSET = re.compile(r"""charset\s*=\s*["']?([a-z0-9._:-]{1,40})""")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_LOCAL_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class FetchError(ServiceError):
    """A page that could not be had, or may not be. `transient` says whether another try may help."""


@dataclass(frozen=True, slots=True)
class Page:
    """A fetched page. `kind` is its media type and `charset` its encoding, in lower case, as the server states them."""

    url: str
    status: int
    kind: str
    charset: str
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """Seconds for a page with its redirects, and its bytes after decompression; pages at the same time, others wait."""

    total: float = 15.0
    size: int = 2 << 20
    connections: int = 64


def is_public(address: Address) -> bool:
    """Whether an address is on the public internet, also inside the forms of IPv6 that contain one of IPv4."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id or address in _LOCAL_NAT64 or address.teredo:
            return False
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is None and int(address) >> 32 == 0:  # ::a.b.c.d, which is obsolete
            return False
        if inner is not None:
            return is_public(inner)
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def checked_url(url: str) -> SplitResult:
    """The parts of a URL that may be fetched. Raises `FetchError` with the reason if it may not."""
    if len(url) > 4096 or _BAD.search(url):
        raise FetchError(f"{url[:80]!r} is not a URL")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise FetchError(f"{url[:80]!r} is not a URL") from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise FetchError(f"{url[:80]!r} is not the URL of a web page")
    if "@" in parts.netloc:
        raise FetchError(f"{url[:80]!r} has a user name, which pages do not need")
    return parts


class PublicWeb:
    """Fetches pages by GET, with redirects.

    `allowed` are addresses `host:port` that may be fetched although they are not public, such as a company's own wiki.
    """

    def __init__(self, limits: FetchLimits | None = None, allowed: Iterable[str] = ()) -> None:
        self._limits = limits or FetchLimits()
        self._allowed = frozenset(allowed)
        self._free = asyncio.Semaphore(self._limits.connections)
        self._certificates: ssl.SSLContext | None = None

    async def fetch(self, url: str, accept: Iterable[str] = ()) -> Page:
        """The page at a URL. Raises `FetchError`, also for a page of no media type in `accept`, if that is given."""
        import httpcore

        self._certificates = self._certificates or ssl.create_default_context()
        try:
            # A pool for each page: one with many connections looks at all of them for each request.
            pool = _pool(self._certificates, self._allowed)
            async with self._free, asyncio.timeout(self._limits.total), pool:
                for _ in range(_REDIRECTS + 1):
                    outcome = await self._get(pool, url, tuple(accept))
                    if isinstance(outcome, Page):
                        return outcome
                    url = outcome
                raise FetchError(f"more than {_REDIRECTS} redirects")
        except TimeoutError:
            raise FetchError(f"no page within {self._limits.total:g} s", transient=True) from None
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.RemoteProtocolError) as error:
            raise FetchError(f"no connection ({type(error).__name__})", transient=True) from None
        except (httpcore.UnsupportedProtocol, httpcore.LocalProtocolError, ssl.SSLError, UnicodeError) as error:
            raise FetchError(f"it cannot be fetched ({type(error).__name__})") from None

    async def _get(self, pool: "httpcore.AsyncConnectionPool", url: str, accept: tuple[str, ...]) -> Page | str:
        """The page, or the URL that it redirects to."""
        parts = checked_url(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        host = (parts.hostname or "").encode("idna" if not (parts.hostname or "").isascii() else "ascii")
        name = host.decode()
        authority = f"[{name}]" if ":" in name else name
        default = _PORTS[parts.scheme]
        port = parts.port if parts.port is not None else default
        if port != default and f"{name}:{port}" not in self._allowed:
            raise FetchError(f"port {port} is not one of the web")
        import httpcore

        where = httpcore.URL(scheme=parts.scheme, host=authority.encode(), port=port, target=_ascii(target))
        headers = [
            ("Host", authority if port == default else f"{authority}:{port}"),
            ("User-Agent", f"{AGENT} (+https://pypi.org/project/r1searcher)"),
            ("Accept", "text/html, application/xhtml+xml, text/plain"),
            ("Accept-Encoding", "gzip"),
        ]
        async with pool.stream("GET", where, headers=headers) as response:
            fields = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in response.headers}
            if 300 <= response.status < 400 and "location" in fields:
                try:
                    return urljoin(url, fields["location"])
                except ValueError:
                    raise FetchError("it redirects to something that is not a URL") from None
            kind = fields.get("content-type", "").partition(";")[0].strip().lower()
            if not 200 <= response.status < 300:
                again = response.status in (408, 429) or response.status >= 500
                raise FetchError(f"status {response.status}", transient=again)
            if accept and kind not in accept:
                raise FetchError(f"it is {kind[:60] or 'of no stated type'}, not text")
            content = await _received(response.aiter_stream(), fields.get("content-encoding", ""), self._limits.size)
            charset = _CHARSET.search(fields.get("content-type", "").lower())
            return Page(url, response.status, kind, charset[1] if charset else "", content)


def _ascii(target: str) -> bytes:
    from urllib.parse import quote

    return quote(target, safe="/?&=%:@!$'()*+,;~#-._[]").encode()


async def _received(pieces: AsyncIterator[bytes], encoding: str, size: int) -> bytes:
    encoding = encoding.strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise FetchError(f"it is compressed with {encoding[:40]}, which was not requested")
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 32) if "gzip" in encoding else None
    content = bytearray()
    async for piece in pieces:
        try:
            content += unpack.decompress(piece, size + 1 - len(content)) if unpack else piece
        except zlib.error:
            raise FetchError("it is not valid gzip") from None
        if len(content) > size:
            raise FetchError(f"it is larger than {size:,} bytes")
    return bytes(content)


def _pool(certificates: ssl.SSLContext, allowed: frozenset[str]) -> "httpcore.AsyncConnectionPool":
    import httpcore

    class Backend(httpcore.AsyncNetworkBackend):
        """Connects to checked addresses alone."""

        def __init__(self) -> None:
            self._backend = httpcore.AnyIOBackend()

        async def connect_tcp(self, host: str, port: int, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
            error: Exception = FetchError(f"{host} has no address", transient=True)
            for address in await addresses_of(host, port, f"{host}:{port}" in allowed):
                try:
                    return await self._backend.connect_tcp(str(address), port, *args, **options)
                except (httpcore.ConnectError, httpcore.ConnectTimeout) as refused:
                    error = refused
            raise error

        async def connect_unix_socket(self, path: str, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
            raise FetchError("sockets of this machine are not fetched")

        async def sleep(self, seconds: float) -> None:
            await self._backend.sleep(seconds)

    return httpcore.AsyncConnectionPool(
        ssl_context=certificates,
        network_backend=Backend(),
    )


async def addresses_of(host: str, port: int, may_be_private: bool = False) -> list[Address]:
    """The addresses of a host. Raises `FetchError` if one of them is not public, unless that is allowed."""
    import socket

    host = host.removeprefix("[").removesuffix("]")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise FetchError(f"{host[:100]} is not known ({error})", transient=isinstance(error, OSError)) from None
    addresses = [ipaddress.ip_address(str(entry[4][0])) for entry in found]
    for address in addresses:
        if not may_be_private and not is_public(address):
            raise FetchError(f"{host[:100]} is at {address}, which is not on the public web")
    return list(dict.fromkeys(addresses))
