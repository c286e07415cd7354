"""Web search APIs: their results as passages, whose id is the page's URL and whose text is the snippet.

    serper    POST https://google.serper.dev/search
    serpapi   GET  https://serpapi.com/search.json
    brave     GET  https://api.search.brave.com/res/v1/web/search
    tavily    POST https://api.tavily.com/search
    searxng   GET  your own server's /search, with `json` among its `search.formats`

An answer without the fields that its provider always sends is an error, never an empty result.
"""

import asyncio
import html
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from urllib.parse import urlencode, urlsplit

from pydantic import BaseModel, Field, StrictStr, model_validator

from r1searcher.common.http import Client, Key, Limits
from r1searcher.corpora.passage import make_passage
from r1searcher.errors import InputError, RetrieverError
from r1searcher.retrieval.base import (
    EngineSettings,
    EpisodeContext,
    Health,
    Hit,
    Retriever,
    SearchResult,
    Span,
    clean_query,
)
from r1searcher.retrieval.budget import Budget

_TAG = re.compile(r"<[^<>]{0,200}>")
_LEAST_RESULTS = 10
"""Results requested at least: filters may remove some, and providers charge per search."""


class _Found(BaseModel):
    """One result, as far as providers agree."""

    title: StrictStr = ""
    url: StrictStr = ""
    link: StrictStr = ""
    snippet: StrictStr | None = None
    description: StrictStr | None = None
    content: StrictStr | None = None


class _Serper(BaseModel):
    searchParameters: dict[str, Any]  # noqa: N815  # the provider's name
    organic: list[_Found] = []


class _SerpApiStatus(BaseModel):
    status: StrictStr


class _SerpApi(BaseModel):
    search_metadata: _SerpApiStatus
    organic_results: list[_Found] = []
    error: StrictStr = ""


class _BraveWeb(BaseModel):
    results: list[_Found] = []


class _Brave(BaseModel):
    type: Literal["search"]
    web: _BraveWeb = _BraveWeb()


class _Tavily(BaseModel):
    results: list[_Found]


class _Searxng(BaseModel):
    results: list[_Found]
    unresponsive_engines: list[Any] = []


def _serpapi(answer: Any) -> list[_Found]:
    said = _SerpApi.model_validate(answer)
    if said.error and "hasn't returned any results" not in said.error:
        raise ValueError(f"error: {said.error[:200]}")
    if said.search_metadata.status != "Success":
        raise ValueError(f"search_metadata.status: {said.search_metadata.status[:50]}")
    return said.organic_results


def _searxng(answer: Any) -> list[_Found]:
    said = _Searxng.model_validate(answer)
    if not said.results and said.unresponsive_engines:
        down = ", ".join(str(one[0] if isinstance(one, list) and one else one) for one in said.unresponsive_engines)
        raise _Outage(f"none of its engines answers ({down[:200]})")
    return said.results


class _Outage(Exception):
    """An answer which says that the provider cannot search now."""


@dataclass(frozen=True, slots=True)
class Provider:
    """One API. `key_in_query`: it takes the key as a parameter of the URL, otherwise in the header `key_header`."""

    variable: str
    url: str
    method: str
    query: str
    """The name of the parameter with the query."""
    count: str
    """The name of the parameter with the number of results; empty if there is none."""
    most: int
    read: Callable[[Any], list[_Found]]
    key_header: str = ""
    key_in_query: str = ""
    fixed: tuple[tuple[str, str], ...] = ()


PROVIDERS = {
    "serper": Provider(
        variable="SERPER_API_KEY",
        url="https://google.serper.dev/search",
        method="POST",
        query="q",
        count="num",
        most=100,
        read=lambda answer: _Serper.model_validate(answer).organic,
        key_header="X-API-KEY",
    ),
    "serpapi": Provider(
        variable="SERPAPI_API_KEY",
        url="https://serpapi.com/search.json",
        method="GET",
        query="q",
        count="num",
        most=100,
        read=_serpapi,
        key_in_query="api_key",
        fixed=(("engine", "google"),),
    ),
    "brave": Provider(
        variable="BRAVE_API_KEY",
        url="https://api.search.brave.com/res/v1/web/search",
        method="GET",
        query="q",
        count="count",
        most=20,
        read=lambda answer: _Brave.model_validate(answer).web.results,
        key_header="X-Subscription-Token",
    ),
    "tavily": Provider(
        variable="TAVILY_API_KEY",
        url="https://api.tavily.com/search",
        method="POST",
        query="query",
        count="max_results",
        most=20,
        read=lambda answer: _Tavily.model_validate(answer).results,
    ),
    "searxng": Provider(
        variable="",
        url="",
        method="GET",
        query="q",
        count="",
        most=1000,
        read=_searxng,
        fixed=(("format", "json"),),
    ),
}
_MOST_QUERY_CHARS = 400
"""Brave and Tavily accept no longer query."""


class Settings(EngineSettings):
    """`web:serper`, `web:serpapi`, `web:brave`, `web:tavily`, or `web:searxng:http://host:8080`."""

    environment: ClassVar[tuple[str, ...]] = tuple(one.variable for one in PROVIDERS.values() if one.variable)

    kind: Literal["web"] = "web"

    address: str = ""
    """Another address for the API, such as a proxy with a cache; for searxng its server."""

    cost_usd: float = Field(0.0, ge=0, le=100)
    """What your plan charges per search, in US dollars: recorded per search, and counted against the budget."""

    budget_searches: int | None = Field(None, ge=0)
    """Stop the run before it sends more searches than this."""

    budget_usd: float | None = Field(None, ge=0)
    """Stop the run before its searches cost more than this."""

    budget_file: str = ""
    """File that counts the searches, also over processes and resumed runs; required for a budget."""

    searches_per_second: float | None = Field(None, gt=0, le=10_000)
    """Limit of each process on the searches that it starts."""

    exclude_domains: tuple[str, ...] = Field(("huggingface.co", "paperswithcode.com"), strict=False)
    """Results of these domains, and of those below them, are left out: they publish benchmarks."""

    exclude_question: bool = True
    """Leave out results that contain the episode's whole question: they are copies of the benchmark."""

    timeout_s: float = Field(30.0, gt=0, le=86_400)
    """Time limit of one request, in seconds."""

    connections: int = Field(64, ge=1, le=10_000)
    """Maximum concurrent requests; further searches wait."""

    @property
    def provider(self) -> str:
        return self.url.split(":")[1] if ":" in self.url else ""

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.provider not in PROVIDERS:
            raise ValueError(f"there is no provider {self.provider[:50]!r}; choose one of {', '.join(PROVIDERS)}")
        if self.provider == "searxng" and not self.base:
            raise ValueError("give the server: web:searxng:http://host:8080")
        limited = self.budget_searches is not None or self.budget_usd is not None
        if limited and not self.budget_file:
            raise ValueError("set `budget_file`: the file that counts the searches of all processes and resumed runs")
        if self.budget_usd is not None and not self.cost_usd:
            raise ValueError("set `cost_usd`, what your plan charges per search, for a budget in US dollars")
        return self

    @property
    def base(self) -> str:
        """The address that requests go to."""
        given = self.address or ":".join(self.url.split(":")[2:])
        if self.provider == "searxng":
            return f"{given.rstrip('/').removesuffix('/search')}/search" if given else ""
        return given or PROVIDERS[self.provider].url

    @property
    def needs_episode(self) -> bool:
        return self.exclude_question

    def absolute(self) -> Self:
        return self.model_copy(
            update={"budget_file": str(Path(self.budget_file).absolute())} if self.budget_file else {}
        )

    def open(self) -> Retriever:
        return WebSearch(self)


class WebSearch:
    """One provider; each query is one request. Raises `InputError` if its key is not in the environment."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._provider = provider = PROVIDERS[settings.provider]
        key = Key.from_environment(provider.variable) if provider.variable else None
        if provider.variable and key is None:
            raise InputError(f"{settings.url} needs a key: set the environment variable {provider.variable}")
        self._key = key
        self._client = Client(
            settings.base,
            f"the web search {settings.provider}",
            instead=f"set {provider.variable}" if provider.variable else "they are not sent",
            key=key if not provider.key_in_query else None,
            key_header=provider.key_header,
            limits=Limits(settings.timeout_s, size=16 << 20, connections=settings.connections),
            error=RetrieverError,
        )
        self._budget = (
            Budget(
                Path(settings.budget_file),
                searches=settings.budget_searches,
                usd=settings.budget_usd,
                cost_usd=settings.cost_usd,
            )
            if settings.budget_file
            else None
        )
        self._pace = Pace(settings.searches_per_second)
        self._question = ""

    def for_episode(self, episode: EpisodeContext) -> "WebSearch":
        bound = object.__new__(WebSearch)
        bound.__dict__ = {**self.__dict__, "_question": normalize(episode.question)}
        return bound

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        if top_k < 1:
            return [SearchResult() for _ in queries]
        return list(await asyncio.gather(*(self._search(clean_query(query), top_k) for query in queries)))

    async def health(self) -> Health:
        """Does not send a search, since that may cost money."""
        return Health(f"web:{self._settings.provider} ({self._client.shown})")

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _search(self, query: str, top_k: int) -> SearchResult:
        query = " ".join(query.replace("\0", " ").split())[:_MOST_QUERY_CHARS]
        if not query:
            return SearchResult()
        await self._pace()
        if self._budget:
            await self._budget.spend()
        started = time.perf_counter()
        try:
            found = await self._found(query, min(max(top_k, _LEAST_RESULTS), self._provider.most))
        except RetrieverError as error:
            return SearchResult(error=error)
        hits, left_out = self._hits(found, top_k)
        link = f"web:{self._settings.provider}" + (f" ({left_out} left out)" if left_out else "")
        return SearchResult(hits, spans=(Span(link, time.perf_counter() - started, self._settings.cost_usd),))

    async def _found(self, query: str, count: int) -> list[_Found]:
        provider = self._provider
        parameters: dict[str, Any] = {**dict(provider.fixed), provider.query: query}
        if provider.count:
            parameters[provider.count] = count
        if provider.key_in_query and self._key:
            parameters[provider.key_in_query] = self._key.value
        url = self._settings.base

        try:
            if provider.method == "POST":
                return await self._client.post(url, parameters, provider.read)
            return await self._client.get(f"{url}?{urlencode(parameters)}", provider.read)
        except _Outage as error:
            raise self._client.failure(str(error), transient=True) from None
        except RetrieverError as error:
            if self._settings.provider == "searxng" and "answered with status 403" in str(error):
                said = "answered with status 403: add json to `search.formats` in its settings.yml"
                raise self._client.failure(said) from None
            raise self._without_key(error) from None

    def _without_key(self, error: RetrieverError) -> RetrieverError:
        if self._key is None:
            return error
        text = self._key.redact(str(error))
        return RetrieverError(text, transient=error.transient, retry_after=error.retry_after)

    def _hits(self, found: Sequence[_Found], top_k: int) -> tuple[tuple[Hit, ...], int]:
        """The hits that may be shown, and how many were left out as copies of a benchmark."""
        hits: list[Hit] = []
        left_out = 0
        for one in found:
            url = one.url or one.link
            text = _plain(one.snippet or one.description or one.content or "")
            title = _plain(one.title)
            if not url.startswith(("http://", "https://")) or not (title or text):
                continue
            if self._is_benchmark(url, f"{title} {text}"):
                left_out += 1
            elif len(hits) < top_k:
                try:
                    hits.append(Hit(make_passage(url, title, text), 1 / (len(hits) + 1)))
                except ValueError:  # half a character
                    continue
        return tuple(hits), left_out

    def _is_benchmark(self, url: str, text: str) -> bool:
        return in_domains(url, self._settings.exclude_domains) or (
            self._settings.exclude_question and contains_question(text, self._question)
        )


def in_domains(url: str, domains: Sequence[str]) -> bool:
    """Whether a URL's host is one of the domains or below one; False for a malformed URL.

    >>> in_domains("https://a.example.org/x", ["example.org"]), in_domains("https://notexample.org", ["example.org"])
    (True, False)
    """
    try:
        host = (urlsplit(url).hostname or "").rstrip(".").lower()
    except ValueError:
        return False
    return any(host == domain or host.endswith(f".{domain}") for domain in map(str.lower, domains))


def contains_question(text: str, normal_question: str) -> bool:
    """Whether a text contains a normalized question of more than three words."""
    return len(normal_question.split()) > 3 and normal_question in normalize(text)


def normalize(text: str) -> str:
    """Words alone, in lower case, so that punctuation hides no copy of a question."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def _plain(text: str) -> str:
    """A snippet without HTML: some providers mark the words that match."""
    return " ".join(html.unescape(_TAG.sub("", text)).split())


class Pace:
    """Lets at most this many calls per second begin, evenly spaced."""

    def __init__(self, per_second: float | None) -> None:
        self._gap = 1 / per_second if per_second else 0.0
        self._next = 0.0

    async def __call__(self) -> None:
        if not self._gap:
            return
        now = time.monotonic()
        begin = max(now, self._next)
        self._next = begin + self._gap
        await asyncio.sleep(begin - now)
