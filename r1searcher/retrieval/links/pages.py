"""The pages that search results lead to, instead of their snippets.

A page is fetched as `common/public_web.py` allows, and the first words of its main text, which trafilatura extracts,
replace the snippet. A page that cannot be had keeps its snippet: on the web that is normal, and the span counts it.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit
from urllib.robotparser import RobotFileParser

from pydantic import Field

from r1searcher.common.public_web import AGENT, FetchError, FetchLimits, Page, PublicWeb
from r1searcher.common.retry import RetryPolicy
from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError
from r1searcher.retrieval.base import EpisodeContext, Health, Hit, Retriever, SearchResult, Span, search_all
from r1searcher.retrieval.engines.web import contains_question, normalize
from r1searcher.retrieval.links.base import Link, LinkSettings, fingerprint_of

KINDS = ("text/html", "application/xhtml+xml", "text/plain")
_REMEMBERED = 2000
_SHORT = 1 << 15
"""Bytes of a page whose text is extracted at once: a thread that competes for the interpreter would cost more."""

_T = TypeVar("_T")


class Settings(LinkSettings):
    """`URL -> pages`."""

    kind: Literal["pages"] = "pages"

    max_words: int = Field(1000, ge=1, le=100_000)
    """Words kept of a page's text."""

    timeout_s: float = Field(15.0, gt=0, le=600)
    """Time limit of one page with its redirects, in seconds."""

    max_bytes: int = Field(2 << 20, ge=1024, le=1 << 30)
    """Larger pages are not read."""

    tries: int = Field(2, ge=1, le=10)
    """Tries for a page whose server fails."""

    connections: int = Field(512, ge=1, le=10_000)
    """Maximum concurrent pages; further ones wait."""

    robots: bool = True
    """Leave out pages that their site's robots.txt excludes for r1searcher."""

    exclude_question: bool = True
    """Leave out pages that contain the episode's whole question: they are copies of the benchmark."""

    allow: tuple[str, ...] = Field((), strict=False)
    """Addresses `host:port` that may be fetched although they are not on the public web, such as your own wiki."""

    @property
    def needs_episode(self) -> bool:
        return self.exclude_question or super().needs_episode

    def wrap(self, retriever: Retriever) -> Retriever:
        return Pages(retriever, self)


class Pages(Link):
    """Replaces snippets by page texts. Raises `InputError` if trafilatura is not installed."""

    def __init__(self, retriever: Retriever, settings: Settings) -> None:
        try:
            import trafilatura  # noqa: F401
        except ImportError as error:
            raise InputError("pages need trafilatura: pip install 'r1searcher[web]'") from error
        super().__init__(retriever)
        self._settings = settings
        self._web = PublicWeb(
            FetchLimits(total=settings.timeout_s, size=settings.max_bytes, connections=settings.connections),
            settings.allow,
        )
        self._reader = _Reader(self._web, settings)
        self._question = ""

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        found = await search_all(self._retriever, queries, top_k)
        return list(await asyncio.gather(*map(self._with_pages, found)))

    def for_episode(self, episode: EpisodeContext) -> "Pages":
        bound = super().for_episode(episode)
        if bound is self:
            bound = object.__new__(type(self))
            bound.__dict__ = dict(self.__dict__)
        bound._question = normalize(episode.question) if self._settings.exclude_question else ""
        return bound

    async def health(self) -> Health:
        health = await self._retriever.health()
        return Health(f"{health.name} -> pages", health.passages, fingerprint_of(self._settings, health))

    async def _with_pages(self, result: SearchResult) -> SearchResult:
        if result.error is not None or not result.hits:
            return result
        started = time.perf_counter()
        texts = await asyncio.gather(*(self._reader.text(hit.passage.id) for hit in result.hits))
        hits = []
        for hit, text in zip(result.hits, texts, strict=True):
            if text is None:
                hits.append(hit)
            elif not contains_question(text, self._question):
                hits.append(_shown(hit, text, self._settings.max_words))
        copies, missing = len(result.hits) - len(hits), texts.count(None)
        notes = [f"{n} {what}" for n, what in ((missing, "without a page"), (copies, "left out")) if n]
        link = f"pages ({', '.join(notes)})" if notes else "pages"
        return replace(result, hits=tuple(hits), spans=(*result.spans, Span(link, time.perf_counter() - started)))


def _shown(hit: Hit, text: str, words: int) -> Hit:
    passage = Passage(hit.passage.id, hit.passage.title, " ".join(text.split()[:words]))
    return Hit(passage, hit.score)


class _Reader:
    """Texts of pages by URL; the last ones are remembered, and a page that is being fetched is fetched once."""

    def __init__(self, web: PublicWeb, settings: Settings) -> None:
        self._web = web
        self._settings = settings
        self._retries = RetryPolicy(tries=settings.tries, longest_pause=2.0, longest_asked=2.0)
        self._texts: OrderedDict[str, asyncio.Future[str | None]] = OrderedDict()
        self._robots: OrderedDict[str, asyncio.Future[RobotFileParser | None]] = OrderedDict()

    async def text(self, url: str) -> str | None:
        """The main text of a page; None if there is none, it cannot be had, or may not be."""
        if not url.startswith(("http://", "https://")):
            return None
        return await _once(self._texts, url, self._text)

    async def _text(self, url: str) -> str | None:
        try:
            if self._settings.robots and not await self._allowed(url):
                return None
            page = await self._retries.acall(lambda: self._web.fetch(url, KINDS))
        except FetchError:
            return None
        short = len(page.content) <= _SHORT
        return (main_text(page) if short else await asyncio.to_thread(main_text, page)) or None

    async def _allowed(self, url: str) -> bool:
        parts = urlsplit(url)
        rules = await _once(self._robots, f"{parts.scheme}://{parts.netloc}", self._rules)
        return rules is None or rules.can_fetch(AGENT, url)

    async def _rules(self, site: str) -> RobotFileParser | None:
        """None allows everything. As RFC 9309 says, a site without the file does, and one that fails allows nothing."""
        rules = RobotFileParser()
        try:
            page = await self._retries.acall(lambda: self._web.fetch(f"{site}/robots.txt"))
        except FetchError as error:
            if not error.transient:
                return None
            rules.parse(["User-agent: *", "Disallow: /"])
            return rules
        rules.parse(page.content[:500_000].decode("utf-8", "replace").splitlines())
        return rules


async def _once(
    known: OrderedDict[str, asyncio.Future[_T]], key: str, make: Callable[[str], Coroutine[Any, Any, _T]]
) -> _T:
    """The value of a key: remembered, or of the call that is making it, or made now."""
    if key in known:
        known.move_to_end(key)
        return await asyncio.shield(known[key])
    known[key] = task = asyncio.ensure_future(make(key))
    while len(known) > _REMEMBERED:
        known.popitem(last=False)
    try:
        return await asyncio.shield(task)
    except BaseException:
        known.pop(key, None)
        raise


def main_text(page: Page) -> str:
    """The text of a page without navigation, advertisements and scripts; empty if there is none."""
    text = _decoded(page)
    if page.kind == "text/plain":
        return (text if text is not None else page.content.decode("utf-8", "replace")).replace("\0", " ").strip()
    import trafilatura

    try:
        found = trafilatura.extract(
            text if text is not None else page.content, include_comments=False, include_tables=True, favor_recall=True
        )
    except Exception:  # a parser given anything that the web has: whatever it raises, there is no text
        return ""
    return (found or "").replace("\0", " ").encode("utf-8", "replace").decode().strip()


def _decoded(page: Page) -> str | None:
    """The content in the encoding that the server states; None if it states none, or a wrong one."""
    try:
        return page.content.decode(page.charset) if page.charset else None
    except (LookupError, ValueError):
        return None
