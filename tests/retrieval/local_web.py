"""A web on this machine: a search endpoint in Serper's format, pages of real passages, and a model that summarizes.

Tests and `benchmarks/web_chain.py` run the chain web -> pages -> summary against it.
"""

import asyncio
import html
import json
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from r1searcher.corpora.passage import Passage
from tests.common.http_server import http_server

_PASSAGES_PER_PAGE = 5
_AROUND = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title} - The Local Encyclopedia</title>
<script type="application/ld+json">{{"@type": "Article", "headline": "{title}", "text": "Structured data."}}</script>
<script>window.track = function () {{ document.write("<p>Tracked</p>"); }};</script>
<style>.ad {{ color: red }} nav > ul {{ list-style: none }}</style></head>
<body class="page"><div id="consent">We and our 731 partners store cookies. <button>Accept all</button></div>
<header><nav><ul>{menu}</ul></nav><form action="/find"><input name="q" placeholder="Find a page"></form></header>
<main><article><h1>{title}</h1><p class="byline">By the editors, last changed in May 2019</p>
{body}</article>
<aside><h3>Related pages</h3><ul>{related}</ul><div class="ad">Cheap flights, today only!</div></aside></main>
<div class="comments"><h3>3 comments</h3><p>First!</p><p>Please correct the second date.<br>Thanks</div>
<footer><ul>{menu}</ul><p>Copyright, imprint, privacy and cookies</p></footer></body></html>"""


@dataclass
class LocalWeb:
    """`failures`: the share of requests that fail, half of them with status 503, half in the middle of the response.

    `page_seconds`, `search_seconds` and `summary_seconds` are waited before a response. `requests` counts them by kind.
    `answers` has every summary written; each is different, so that two runs of the model never agree by chance.
    """

    passages: Sequence[Passage]
    failures: float = 0.0
    page_seconds: float = 0.0
    search_seconds: float = 0.0
    summary_seconds: float = 0.0
    distinct: bool = False
    """Every search finds other addresses of the pages, so that none of them is known already."""
    requests: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("search", "page", "robots", "summary"), 0))
    failed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("search", "page", "robots", "summary"), 0))

    def __post_init__(self) -> None:
        self._draw = random.Random(7)
        self._numbers = count(1)
        self._groups = [
            self.passages[at : at + _PASSAGES_PER_PAGE] for at in range(0, len(self.passages), _PASSAGES_PER_PAGE)
        ]
        self._words = [words(" ".join(f"{p.title} {p.text}" for p in group)) for group in self._groups]
        self._pages = [self._page(number) for number in range(len(self._groups))]

    @property
    def routes(self) -> list[Route]:
        return [
            Route("/search", self._responds("search", self.search_seconds, self._search), methods=["POST"]),
            Route("/page/{number:int}/{visit}", self._responds("page", self.page_seconds, self._visit)),
            Route("/robots.txt", self._responds("robots", 0.0, self._robots)),
            Route("/counts", self._counts),
            Route(
                "/v1/chat/completions",
                self._responds("summary", self.summary_seconds, self._summarize),
                methods=["POST"],
            ),
            Route("/v1/models", self._models),
        ]

    def settings(self, address: str, file: str = "", mode: str = "record", **pages: Any) -> dict[str, Any]:
        """The table of the chain; with `file` recorded there. `pages` are further keys of the link."""
        web = {"kind": "web", "url": "web:serper", "address": f"{address}/search"}
        fetched = {"kind": "pages", "of": web, "allow": [address.removeprefix("http://")], **pages}
        summary = {"kind": "summary", "server": f"{address}/v1", "model": "m", "of": fetched}
        return {"kind": "cache", "file": file, "mode": mode, "of": summary} if file else summary

    def _page(self, number: int) -> str:
        group = self._groups[number]
        around = [self._groups[(number + n) % len(self._groups)][0].title for n in range(1, 9)]
        items = "".join(f'<li><a href="/page/{n}/x">{html.escape(title)}</a></li>' for n, title in enumerate(around))
        body = "\n".join(
            f'<h2 id="s{n}">{html.escape(p.title)}</h2><p>{html.escape(p.text)} <a href="#s{n}">[{n}]</a></p>'
            for n, p in enumerate(group)
        )
        return _AROUND.format(title=html.escape(group[0].title), menu=items, body=body, related=items)

    def _responds(
        self, kind: str, seconds: float, respond: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            self.requests[kind] += 1
            drawn = self._draw.random()
            await asyncio.sleep(seconds)
            if drawn >= self.failures:
                return await respond(request)
            self.failed[kind] += 1
            if drawn < self.failures / 2:
                return PlainTextResponse("busy", 503)
            return StreamingResponse(_broken(), headers={"Content-Length": "1000", "Content-Type": "text/html"})

        return endpoint

    async def _search(self, request: Request) -> Response:
        asked = json.loads(await request.body())
        wanted = words(asked["q"])
        ranking = sorted(range(len(self._groups)), key=lambda n: (-len(wanted & self._words[n]), n))
        visit = next(self._numbers) if self.distinct else "x"
        organic = [
            {
                "title": self._groups[number][0].title,
                "link": f"{str(request.base_url).rstrip('/')}/page/{number}/{visit}",
                "snippet": f"{self._groups[number][0].text[:120]} ...",
                "position": position,
            }
            for position, number in enumerate(ranking[: asked["num"]], 1)
        ]
        return JSONResponse({"searchParameters": {"q": asked["q"], "type": "search"}, "organic": organic, "credits": 1})

    async def _visit(self, request: Request) -> Response:
        return HTMLResponse(self._pages[request.path_params["number"]])

    async def _robots(self, request: Request) -> Response:
        return PlainTextResponse("User-agent: *\nDisallow: /find")

    async def _summarize(self, request: Request) -> Response:
        prompt = json.loads(await request.body())["messages"][0]["content"]
        query, _, document = prompt.rpartition("Query: ")[2].partition("\n")
        sentences = re.split(r"(?<=[.!?])\s+", document.partition("Document:\n")[2])
        best = max(sentences, key=lambda sentence: len(words(query) & words(sentence)))
        said = f"{best} (summary {next(self._numbers)})" if words(query) & words(best) else "NOTHING"
        return JSONResponse({"choices": [{"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}]})

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"data": [{"id": "m"}]})

    async def _counts(self, request: Request) -> Response:
        return JSONResponse({"requests": self.requests, "failed": self.failed})


@contextmanager
def local_web(passages: Iterable[Passage], **changes: Any) -> Iterator[tuple[LocalWeb, str]]:
    """The web of some passages, and its address."""
    web = LocalWeb(list(passages), **changes)
    with http_server(web.routes, log_level="critical") as address:  # it would log each connection that it drops
        yield web, address


def words(text: str) -> set[str]:
    """Words of four letters or more, in lower case."""
    return set(re.findall(r"\w{4,}", text.lower()))


async def _broken() -> AsyncIterator[bytes]:
    yield b"<html><p>This response ends ear"
