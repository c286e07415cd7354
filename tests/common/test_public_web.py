"""Only public addresses are reached, whatever a URL, a name or a redirect looks like.

A server listens on this machine where the URLs lead; it must never get a request.
"""

import asyncio
import gzip
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from r1searcher.common import public_web
from r1searcher.common.public_web import FetchError, FetchLimits, PublicWeb, is_public
from tests.common.http_server import http_server


class Trap:
    """A server on this machine whose port is that of the web."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.address = ""

    async def respond(self, request: Request) -> Response:
        self.requests.append(str(request.url))
        if "redirect" in request.path_params["path"]:
            return RedirectResponse(request.query_params["to"])
        return PlainTextResponse("a secret of this machine")


@pytest.fixture
def trap(monkeypatch: pytest.MonkeyPatch) -> Iterator[Trap]:
    trap = Trap()
    with http_server([Route("/{path:path}", trap.respond)]) as address:
        trap.address = address.removeprefix("http://")
        port = int(trap.address.rpartition(":")[2])
        monkeypatch.setattr(public_web, "_PORTS", {"http": port, "https": port})
        yield trap


def fetch(url: str, *allowed: str, **limits: Any) -> public_web.Page:
    async def run() -> public_web.Page:
        return await PublicWeb(FetchLimits(**limits), allowed).fetch(url, accept=("text/html", "text/plain"))

    return asyncio.run(run())


def test_the_trap_works(trap: Trap) -> None:
    assert fetch(f"http://{trap.address}/x", trap.address).content == b"a secret of this machine"
    assert len(trap.requests) == 1


PRIVATE = [
    "http://127.0.0.1/",
    "http://localhost/",
    "http://LOCALHOST./",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0177.0.0.1/",
    "http://0.0.0.0/",
    "http://127.255.255.254/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[fe80::1%25lo]/",
    "http://[fd00::1]/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.0.1/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://example.org@127.0.0.1/",
    "http://127.0.0.1#@example.org/",
    "http://127.0.0.1\\@example.org/",
    "http://①②⑦.⓪.⓪.①/",
    "http://127。0。0。1/",
    "https://127.0.0.1/",
    "HTTP://127.0.0.1/",
    "file:///etc/passwd",
    "gopher://127.0.0.1/",
    "ftp://127.0.0.1/",
    "http:127.0.0.1/",
    "//127.0.0.1/",
    "http://127.0.0.1:22/",
    "http://127.0.0.1:99999/",
    "http://[::1/",
    "http:///",
    " http://127.0.0.1/",
    "http://127.0.0.1/\r\nX: y",
]


@pytest.mark.parametrize("url", PRIVATE)
def test_no_form_of_a_private_address_is_reached(trap: Trap, url: str) -> None:
    with pytest.raises(FetchError) as failure:
        fetch(url)
    assert not failure.value.transient or "not known" in str(failure.value)
    assert trap.requests == []


@pytest.mark.parametrize(
    "url", [url for url in PRIVATE if url.startswith("http://") and "\r" not in url and url != "http:///"]
)
def test_no_redirect_leads_to_one(trap: Trap, url: str) -> None:
    """The first server is allowed; the trap's own address under that name is not."""
    with http_server([Route("/{path:path}", Trap().respond)]) as first:
        address = first.removeprefix("http://")
        with pytest.raises(FetchError):
            fetch(f"{first}/redirect?to={url.replace('#', '%23')}", address)
    assert trap.requests == []


def names(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Name resolution that gives these addresses, one list per question; the last one from then on."""
    asked: list[str] = []

    async def getaddrinfo(self: Any, host: str, port: int, **options: Any) -> list[Any]:
        asked.append(host)
        now = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in now]

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize("answer", [["127.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["10.0.0.7"]])
def test_a_name_of_a_private_address_is_not_reached(
    trap: Trap, monkeypatch: pytest.MonkeyPatch, answer: list[str]
) -> None:
    names(monkeypatch, answer)
    with pytest.raises(FetchError, match="is not on the public web"):
        fetch("http://pages.example/")
    assert trap.requests == []


def test_a_name_that_changes_after_it_was_checked_is_not_followed(trap: Trap, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is made to the address that was checked, without a second question."""
    asked = names(monkeypatch, ["192.0.2.1"], ["127.0.0.1"])
    monkeypatch.setattr(public_web, "is_public", lambda address: str(address) == "192.0.2.1")
    with pytest.raises(FetchError):
        fetch("http://pages.example/", total=0.5)
    assert asked == ["pages.example"]
    assert trap.requests == []


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"])
def test_proxy_variables_are_not_used(trap: Trap, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, f"http://{trap.address}")
    names(monkeypatch, ["192.0.2.1"])
    monkeypatch.setattr(public_web, "is_public", lambda address: True)
    with pytest.raises(FetchError):
        fetch("http://pages.example/", total=0.5)
    assert trap.requests == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("64:ff9b::808:808", True),
        ("64:ff9b::a00:1", False),
        ("64:ff9b:1::808:808", False),
        ("2002:808:808::1", True),
        ("2002:a00:1::1", False),
        ("2001:0:53aa:64c:0:fbff:5a8f:8e5e", False),
        ("::ffff:8.8.8.8", True),
        ("::ffff:192.168.1.1", False),
        ("198.18.0.1", False),
        ("192.0.2.1", False),
        ("ff02::1", False),
        ("2001:db8::1", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(ip_address(address)) is public


async def _slow(request: Request) -> Response:
    await asyncio.sleep(5)
    return PlainTextResponse("late")


async def _large(request: Request) -> Response:
    async def pieces() -> Any:
        for _ in range(1000):
            await asyncio.sleep(0.001)
            yield b"x" * 100_000

    return StreamingResponse(pieces(), media_type="text/plain")


def _packed(content: bytes, encoding: str = "gzip") -> Response:
    return Response(content, media_type="text/plain", headers={"Content-Encoding": encoding})


ROUTES = [
    Route("/slow", _slow),
    Route("/large", _large),
    Route("/loop", lambda request: RedirectResponse("/loop")),
    Route("/moved", lambda request: RedirectResponse("/good")),
    Route("/good", lambda request: PlainTextResponse("good")),
    Route("/image", lambda request: Response(b"\x89PNG", media_type="image/png")),
    Route("/zip", lambda request: _packed(gzip.compress(b"zipped"))),
    Route("/bomb", lambda request: _packed(gzip.compress(bytes(50 << 20)))),
    Route("/torn", lambda request: _packed(b"\x1f\x8bnothing")),
    Route("/br", lambda request: _packed(b"x", "br")),
    Route("/down", lambda request: Response(status_code=503)),
    Route("/none", lambda request: Response(status_code=404)),
]


@pytest.mark.parametrize(
    ("path", "said", "transient"),
    [
        ("slow", "no page within 0.5 s", True),
        ("large", "larger than 1,000,000 bytes", False),
        ("bomb", "larger than 1,000,000 bytes", False),
        ("loop", "more than 5 redirects", False),
        ("image", "it is image/png, not text", False),
        ("torn", "not valid gzip", False),
        ("br", "compressed with br", False),
        ("down", "status 503", True),
        ("none", "status 404", False),
    ],
)
def test_pages_that_cannot_be_had_say_why(path: str, said: str, transient: bool) -> None:
    total = 0.5 if path == "slow" else 30.0
    with http_server(ROUTES) as address, pytest.raises(FetchError, match=said) as failure:
        fetch(f"{address}/{path}", address.removeprefix("http://"), total=total, size=1_000_000)
    assert failure.value.transient is transient


def test_redirects_and_compression_are_followed() -> None:
    with http_server(ROUTES) as address:
        allowed = address.removeprefix("http://")
        moved = fetch(f"{address}/moved", allowed)
        assert (moved.url, moved.content, moved.kind) == (f"{address}/good", b"good", "text/plain")
        assert fetch(f"{address}/zip?q=a b".replace(" ", "%20"), allowed).content == b"zipped"
