"""The HTTP client for search, judge, completions and downloads, and the handling of URLs and keys everywhere.

- `Client` never follows a redirect: it is an error that names the other host and nothing else. A key is sent only to
  the host it was given for. (`common/download.py`, which does not send keys, follows a few.)
- The size of a response is limited, after decompression, and so is the total time of a request, from waiting for the
  connection to the last byte of the response.
- Errors are `ServiceError`s: transient if the same request may succeed later. A server's message in one is truncated,
  and if it echoes the key, the key is replaced by the name of its variable.
- Proxies come from HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, certificates from SSL_CERT_FILE and SSL_CERT_DIR,
  as usual with httpx. Addresses of this machine (localhost, 127.x.x.x, ::1) are never reached through a proxy.
"""

import asyncio
import base64
import json
import logging
import os
import re
import zlib
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from time import time
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import SplitResult, quote, urlsplit

from pydantic import ValidationError

from r1searcher.common.files import parse_json
from r1searcher.common.records import first_of
from r1searcher.common.terminal import visible
from r1searcher.errors import InputError, ServiceError

if TYPE_CHECKING:
    import ssl

    import httpx

T = TypeVar("T")

_SAID = 300  # characters shown of an error response
_LONGEST_ERROR = 64 << 10
_SHOWN_URL = 300
_NGRAM = 8  # this many characters of a key reveal too much of it

_AUTHORITY = re.compile(r"^((?:[A-Za-z][A-Za-z0-9+.-]*:)*)([/\\]{2,})([^/?#\\]*)(.*)$", re.DOTALL)
_AT = re.compile("[@\uff20\ufe6b]")  # the last two become @ when a host name is normalized
_HOST_AND_PORT = re.compile(r"^(\[[^\]]*\]|[^:\[\]]*)(:\d*)?$")


def shown_url(url: str) -> str:
    """A URL for errors, manifests and reports: without user, password, query values and fragment.

    Accepts any string, including malformed URLs and file paths. Control characters are made visible; long ones are cut.

    >>> shown_url("http://me:secret@host:8000/retrieve?token=abc")
    'http://host:8000/retrieve?token=…'
    """
    if found := _AUTHORITY.match(url):
        scheme, slashes, authority, rest = found.groups(default="")
        authority = _AT.split(authority)[-1]
        if not _HOST_AND_PORT.match(authority) and _AT.search(rest):  # a password with a slash in it
            authority, rest = "", _AT.split(rest)[-1]
        path, mark, query = rest.partition("#")[0].partition("?")
        names = [f"{name}=…" if equals else "…" for name, equals, _ in (p.partition("=") for p in query.split("&"))]
        url = f"{scheme}{slashes}{authority}{path}{mark}{'&'.join(names) if query else ''}"
    else:
        url = re.sub(r"^((?!file:)[^/:@]*:[^/]*[@\uff20\ufe6b])", "", url)  # user:password@host without a scheme
    url = visible(url[: _SHOWN_URL + 1]).replace("\n", "␊").replace("\t", "␉")
    return url if len(url) <= _SHOWN_URL else url[:_SHOWN_URL] + "…"


def split_url(url: str, what: str, instead: str, schemes: Collection[str] = ("http", "https")) -> SplitResult:
    """The parts of a service's URL, with a valid host and port.

    `what` names it in errors ("the judge's URL"), `instead` says where user and password belong ("set R1S_JUDGE_KEY").
    Raises `InputError` with a message that contains nothing of user, password or query.
    """
    wanted = f"{what} {shown_url(url)} is not a URL of the form {'|'.join(schemes)}://host:port/path"
    if any(c.isspace() or not c.isprintable() for c in url):
        raise InputError(f"{wanted}: it contains a space or a control character")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise InputError(f"{wanted}: its host or port is malformed") from None
    if _AT.search(parts.netloc):
        raise InputError(f"{what} {shown_url(url)}: leave user and password out of the URL; {instead}")
    if parts.scheme not in schemes or not host:
        raise InputError(wanted)
    if port == 0 or not _is_host(host):
        raise InputError(f"{wanted}: its host or port is malformed")
    return parts


def _is_host(host: str) -> bool:
    try:
        ascii_host = host if ":" in host else host.encode("idna").decode("ascii")
    except UnicodeError:  # an empty label, or one of more than 63 characters
        return False
    if ":" in ascii_host:
        try:
            ip_address(ascii_host)
        except ValueError:
            return False
        return True
    return re.fullmatch(r"[A-Za-z0-9._-]+", ascii_host) is not None


@dataclass(frozen=True, slots=True, repr=False)
class Key:
    """A secret from an environment variable. Its representation is the variable's name."""

    variable: str
    value: str

    def __post_init__(self) -> None:
        if not self.value or not all("!" <= c <= "~" for c in self.value):
            raise InputError(
                f"{self.variable} cannot be sent: it contains a space, a line end or another character that is not "
                "valid in a key; set it again"
            )

    def __repr__(self) -> str:
        return f"Key({self.variable})"

    @classmethod
    def from_environment(cls, *variables: str) -> Self | None:
        """The first variable that is set and not empty. Raises `InputError` for a value not valid in a header."""
        return next((cls(name, value) for name in variables if (value := os.environ.get(name))), None)

    def redact(self, text: str) -> str:
        """`text` without the key."""
        return redact(text, self.value, self.variable)


def redact(text: str, secret: str, name: str) -> str:
    """`text` with every piece of `secret` of eight characters or more (or all of a shorter one) replaced by its name.

    Percent-encoded and base64 forms are replaced too.
    """
    forms = {secret, quote(secret, safe=""), base64.b64encode(secret.encode("utf-8", "replace")).decode().rstrip("=")}
    hidden = bytearray(len(text))
    for form in forms:
        size = min(_NGRAM, len(form))
        grams = {form[i : i + size] for i in range(len(form) - size + 1)}
        for i in range(len(text) - size + 1):
            if text[i : i + size] in grams:
                hidden[i : i + size] = b"\x01" * size
    pieces, at = [], 0
    for number, run in enumerate(re.split(b"(\x01+)", bytes(hidden))):
        pieces.append(f"[{name}]" if number % 2 else text[at : at + len(run)])
        at += len(run)
    return "".join(pieces)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one request.

    total: seconds from the first byte sent to the last one read. connect: seconds until a connection is established.
    size: bytes of the response after decompression. connections: concurrent requests; others wait without a limit.
    """

    total: float = 120.0
    connect: float = 10.0
    size: int = 64 << 20
    connections: int = 32


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and full content, decompressed."""

    status: int
    content: bytes


class Client:
    """A service at one address, for the event loop that first uses it.

    `what` names the service in errors ("the judge"), `instead` says what to do instead of a password in the URL.
    `key` is sent to this host only: as a bearer token, or as the value of the header `key_header`. `error` is the class
    of the errors raised. Raises `InputError` for a malformed URL.
    """

    def __init__(
        self,
        url: str,
        what: str,
        *,
        instead: str = "they are not sent",
        key: Key | None = None,
        key_header: str = "",
        limits: Limits = Limits(),
        error: type[ServiceError] = ServiceError,
    ) -> None:
        self._key_header = key_header
        self._parts = split_url(url, f"{what}'s URL", instead)
        self.url = url
        self.shown = shown_url(url)
        self.what = what
        self._key = key
        self._limits = limits
        self._error = error
        self._free = asyncio.Semaphore(limits.connections)
        self._trusted: ssl.SSLContext | None = None
        self._open: list[httpx.AsyncClient] = []
        self._idle: list[httpx.AsyncClient] = []

    async def get(self, url: str, read: Callable[[Any], T]) -> T:
        """The result of `read` on the JSON at `url`, which must be on this client's host."""
        answer = await self.send("GET", url)
        return await self.read(answer, read)

    async def post(self, url: str, body: Any, read: Callable[[Any], T]) -> T:
        """The result of `read` on the JSON response to `body`."""
        answer = await self.send("POST", url, body)
        return await self.read(answer, read)

    async def read(self, answer: Answer, read: Callable[[Any], T]) -> T:
        """JSON through one reader, which raises `ValueError` (including pydantic's) if the shape is wrong."""

        def parse() -> T:
            return read(parse_json(answer.content))

        try:
            return await asyncio.to_thread(parse) if len(answer.content) > 1 << 18 else parse()
        except ValueError as error:
            raise self.failure(f"sent a response that does not follow its protocol: {first_problem(error)}") from None

    async def send(self, method: str, url: str, body: Any = None, accept: Collection[int] = ()) -> Answer:
        """One request. A status outside 200 to 299 and `accept` is an error."""
        if urlsplit(url)[:2] != self._parts[:2]:
            raise ValueError(f"{self.what} is on another host")
        content = None if body is None else json.dumps(body).encode()
        headers = {"Accept": "application/json", **({"Content-Type": "application/json"} if content else {})}
        async with self._free:
            # One connection each: a client with many looks at all of them for each request.
            http = self._idle.pop() if self._idle else self._http_client()
            try:
                with connected(self._limits.connect, self._limits.total, self.failure):
                    async with asyncio.timeout(self._limits.total):
                        request = http.build_request(method, url, content=content, headers=headers)
                        response = await http.send(request, stream=True)
                        try:
                            return await self._received(response, accept)
                        finally:
                            await response.aclose()
            finally:
                if not http.is_closed:
                    self._idle.append(http)

    async def _received(self, response: "httpx.Response", accept: Collection[int]) -> Answer:
        status = response.status_code
        good = 200 <= status < 300 or status in accept
        if 300 <= status < 400 and not good:
            raise self.failure(f"redirects to {_host_of(response)}, and redirects are not followed: use its final URL")
        content = bytearray()
        size = self._limits.size if good else _LONGEST_ERROR
        async with aclosing(_decompressed(response, size, self.failure)) as pieces:
            async for piece in pieces:
                content += piece
                if len(content) > size:
                    break
        if good and len(content) > size:
            raise self.failure(f"sent more than {size:,} bytes in one response")
        if not good:
            raise self.failure(
                f"answered with status {status}: {content.decode('utf-8', 'replace')}",
                transient=is_transient(status),
                retry_after=retry_after(response.headers),
            )
        return Answer(status, bytes(content))

    def failure(self, reason: str, *, transient: bool = False, retry_after: float | None = None) -> ServiceError:
        """An error about this service, in one line, without any part of the key."""
        reason = self._key.redact(reason) if self._key else reason
        reason = visible(" ".join(reason.split()))
        if len(reason) > _SAID:
            reason = reason[:_SAID] + "…"
        return self._error(f"{self.what} {self.shown} {reason}", transient=transient, retry_after=retry_after)

    async def aclose(self) -> None:
        opened, self._open, self._idle = self._open, [], []
        for http in opened:
            await http.aclose()

    def _http_client(self) -> "httpx.AsyncClient":
        headers = self._key_headers(self._key) if self._key else {}
        self._trusted = self._trusted or trusted_certificates()
        self._open.append(http_client(self._parts.hostname or "", self._limits, headers, self._trusted))
        return self._open[-1]

    def _key_headers(self, key: Key) -> dict[str, str]:
        return {self._key_header: key.value} if self._key_header else {"Authorization": f"Bearer {key.value}"}


def trusted_certificates() -> "ssl.SSLContext":
    """Those of SSL_CERT_FILE and SSL_CERT_DIR, as usual with httpx. Raises `InputError` if they cannot be read."""
    import httpx

    try:
        return httpx.create_ssl_context()
    except OSError as error:
        raise InputError(
            f"the certificates of SSL_CERT_FILE or SSL_CERT_DIR cannot be read ({error.strerror})"
        ) from None


def http_client(
    host: str,
    limits: Limits,
    headers: Mapping[str, str] | None = None,
    trusted: "ssl.SSLContext | None" = None,
) -> "httpx.AsyncClient":
    """httpx with the settings used everywhere: no redirects, no compression, no proxy for this machine's addresses.

    `trusted` is for several clients, since reading the certificates takes longer than the rest. Raises `InputError` for
    invalid proxy variables in the environment.
    """
    import httpx

    from r1searcher import __version__

    for name in ("httpx", "httpcore"):  # at INFO they log every URL, with its query
        logging.getLogger(name).setLevel(logging.WARNING)
    direct = {f"all://{f'[{host}]' if ':' in host else host}": None} if is_loopback(host) else {}
    try:
        return httpx.AsyncClient(
            headers={"User-Agent": f"r1searcher/{__version__}", "Accept-Encoding": "identity", **(headers or {})},
            timeout=httpx.Timeout(limits.total, connect=limits.connect, pool=None),
            limits=httpx.Limits(max_connections=None, keepalive_expiry=2.0),  # many servers disconnect after five
            mounts=direct,
            verify=trusted or trusted_certificates(),
            follow_redirects=False,
        )
    except (ValueError, ImportError, httpx.InvalidURL):
        raise InputError(
            "the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names cannot be used: set it to http://host:port, "
            "or unset it"
        ) from None


def is_loopback(host: str) -> bool:
    """Whether a host name or address belongs to this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_transient(status: int) -> bool:
    """Whether the same request may succeed later: a timeout, too many requests, a server error."""
    return status in (408, 429) or (status >= 500 and status not in (501, 505))  # not implemented, HTTP version


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, given as a number or a date (RFC 9110, 10.2.3)."""
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except (ValueError, OverflowError):
        return None


@contextmanager
def connected(connect: float, total: float, failure: Callable[..., ServiceError]) -> Iterator[None]:
    """Turns httpx's exceptions, and an exceeded total time, into ours."""
    import httpx

    try:
        yield
    except httpx.ConnectTimeout:
        raise failure(f"does not answer (no connection within {connect:g} s)", transient=True) from None
    except (TimeoutError, httpx.TimeoutException):
        raise failure(f"did not finish its answer within {total:g} s", transient=True) from None
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
        raise failure(f"cannot be reached: {error}") from None
    except httpx.TransportError as error:
        reason, transient = _cause(error)
        raise failure(f"does not answer ({reason})", transient=transient) from None


def _cause(error: BaseException) -> tuple[str, bool]:
    """The innermost cause of a lost connection, and whether it is transient."""
    import ssl

    text = str(error) or type(error).__name__
    chain: list[BaseException] = [error]
    for link in chain:
        if isinstance(link, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({link.verify_message}); set SSL_CERT_FILE to add others", False
        if isinstance(link, ssl.SSLError) and link.reason == "WRONG_VERSION_NUMBER":
            return "it does not speak HTTPS; does its URL begin with http://?", False
        chain += [inner for inner in (link.__cause__, link.__context__) if inner is not None and inner not in chain]
        chain += [inner for inner in getattr(link, "exceptions", ()) if inner not in chain]
    if any(type(link).__module__.startswith("h11") for link in chain) and "peer closed" not in text:
        return "it does not speak HTTP", False
    reasons = [_system_reason(link) for link in chain if isinstance(link, OSError) and link.errno]
    return (reasons[-1] if reasons else text).lower(), True


def _system_reason(error: OSError) -> str:
    """asyncio puts addresses into some messages; name resolution errors have their own numbers."""
    import socket

    text = error.strerror or "" if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
    return text or str(error)


async def _decompressed(
    response: "httpx.Response", size: int, failure: Callable[..., ServiceError]
) -> AsyncGenerator[bytes, None]:
    """The body in pieces. Servers send gzip even if it was not requested; no piece grows far beyond `size`."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in ("identity", ""):
        async for piece in response.aiter_raw():
            yield piece
    elif encoding in ("gzip", "x-gzip", "deflate"):
        unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)
        try:
            async for piece in response.aiter_raw():
                yield unpack.decompress(piece, size + 1)
                if unpack.unconsumed_tail:
                    yield unpack.decompress(unpack.unconsumed_tail, size + 1)
        except zlib.error:
            raise failure(f"sent a response that is not valid {encoding}") from None
    else:
        raise failure("compressed its response with an encoding that was not requested")


def _host_of(response: "httpx.Response") -> str:
    try:
        return urlsplit(str(response.headers.get("Location", ""))).hostname or "another URL"
    except ValueError:
        return "another URL"


def first_problem(error: ValueError) -> str:
    """The message of a `ValueError` in one line; for a pydantic error the first problem, with its location."""
    if not isinstance(error, ValidationError):
        return str(error)
    place, message = first_of(error)
    return f"{place[:100]}: {message}" if place else message
