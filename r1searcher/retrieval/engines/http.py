"""A retrieval server on the network: Search-R1's protocol (`/retrieve`) or R1-Searcher's (`/queries`)."""

import io
import json
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StrictStr, TypeAdapter

from r1searcher.common.http import Client, Limits, shown_url
from r1searcher.corpora.formats import FORMATS
from r1searcher.corpora.passage import Passage
from r1searcher.corpora.rows import BadRow
from r1searcher.errors import InputError, RetrieverError
from r1searcher.retrieval.base import EngineSettings, Health, Hit, Retriever, SearchResult, Span, clean_query
from r1searcher.retrieval.batching import Batcher

_MAX_ANSWER_BYTES = 64 << 20


class Settings(EngineSettings):
    """`http://host:port/retrieve`, `http://host:port/queries`, or the same with https."""

    kind: Literal["http"] = "http"

    timeout_s: float = Field(120.0, gt=0, le=86_400)
    """Time limit of one request, in seconds."""

    connections: int = Field(32, ge=1, le=10_000)
    """Maximum concurrent requests; searches that wait for one are sent together."""

    def open(self) -> Retriever:
        return Batcher(HttpRetriever(self), self.connections)


class _SearchR1(BaseModel):
    """`/retrieve`: a list of results per query. A result is a document, or one in an object with its score."""

    result: list[list[dict[str, Any]]]


class _R1Searcher(BaseModel):
    """`/queries`: a list of rows per query. This protocol has no scores."""

    answers: list[list[StrictStr]]


class _Health(BaseModel):
    """`/health` of `r1s serve`. Other servers have other fields there: all of these are optional."""

    model_config = ConfigDict(strict=True)

    passages: Annotated[int, Field(ge=0, le=10**15)] | None = None
    fingerprint: Annotated[str, Field(max_length=200, pattern=r"^[ -~]*$")] | None = None


_SCORE: TypeAdapter[float] = TypeAdapter(FiniteFloat, config=ConfigDict(strict=True))


class HttpRetriever:
    """A server at `http://host:port/retrieve` or `http://host:port/queries`.

    Raises `InputError` for another URL; its methods raise `RetrieverError`. Both protocols answer a batch as a whole,
    so an error affects the whole call.
    """

    def __init__(self, settings: Settings) -> None:
        url = settings.url
        self._client = Client(
            url,
            "the retrieval server",
            instead="r1s does not send them to a retrieval server",
            limits=Limits(settings.timeout_s, size=_MAX_ANSWER_BYTES, connections=settings.connections),
            error=RetrieverError,
        )
        parts = urlsplit(url)
        base, _, name = parts.path.rstrip("/").rpartition("/")
        if name not in ("retrieve", "queries"):
            raise InputError(f"{shown_url(url)} is not a retrieval server: its URL ends in /retrieve or /queries")
        self._url = url
        self._health_url = parts._replace(path=f"{base}/health", fragment="").geturl()
        self._ask = self._search_r1 if name == "retrieve" else self._r1_searcher

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        if not queries or top_k < 1:
            return [SearchResult() for _ in queries]
        started = time.perf_counter()
        cleaned = [clean_query(query) for query in queries]
        asked = [query for query in cleaned if query.strip()]  # servers reject a batch with an empty query
        found = iter(await self._ask(asked, top_k) if asked else [])
        spans = (Span("http", time.perf_counter() - started),)
        return [SearchResult(tuple(next(found)), spans=spans) if query.strip() else SearchResult() for query in cleaned]

    async def health(self) -> Health:
        """The server's health; a server without `/health` gets a test query."""
        answer = await self._client.send("GET", self._health_url, accept=(404, 405))
        is_object = answer.status == 200 and answer.content.lstrip().startswith(b"{")
        said = await self._client.read(answer, _Health.model_validate) if is_object else _Health()
        if said.passages is None and not said.fingerprint:
            await self.search(["health"], 1)
        return Health(self._client.shown, said.passages, said.fingerprint or "")

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _search_r1(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        def read(answer: Any) -> list[list[Hit]]:
            found = _one_each(_SearchR1.model_validate(answer).result, "result", queries)
            return [[self._search_r1_hit(item, place) for place, item in enumerate(r[:top_k], 1)] for r in found]

        body = {"queries": queries, "topk": top_k, "return_scores": True}
        return await self._client.post(self._url, body, read)

    def _search_r1_hit(self, item: dict[str, Any], place: int) -> Hit:
        document, score = item.get("document", item), item.get("score")
        if not isinstance(document, dict):
            raise ValueError("a result's document is not an object")
        document = {"id": f"{self._client.shown}#{place}", **document}
        passage = _passage("jsonl", json.dumps(document, ensure_ascii=False).encode("utf-8", "replace"))
        return Hit(passage, 1 / place if score is None else _SCORE.validate_python(score))

    async def _r1_searcher(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """The score is the reciprocal of the rank."""

        def read(answer: Any) -> list[list[Hit]]:
            found = _one_each(_R1Searcher.model_validate(answer).answers, "answers", queries)
            return [[Hit(_row(row), 1 / place) for place, row in enumerate(rows[:top_k], 1)] for rows in found]

        return await self._client.post(self._url, {"queries": queries, "k": top_k}, read)


def _one_each(found: list[list[Any]], name: str, queries: Sequence[str]) -> list[list[Any]]:
    if len(found) != len(queries):
        raise ValueError(f"{name}: {len(found)} lists for {len(queries)} queries")
    return found


def _row(row: str) -> Passage:
    return _passage("r1-searcher", row.replace("\n", " ").encode("utf-8", "replace"))


def _passage(format_: str, row: bytes) -> Passage:
    """A passage, read as from a file of that format. Raises `ValueError`."""
    items = list(FORMATS[format_].read(io.BytesIO(row)))
    if len(items) != 1 or isinstance(items[0], BadRow):
        reason = items[0].reason if items and isinstance(items[0], BadRow) else "it is empty"
        raise ValueError(f"a passage is unreadable: {reason}")
    return items[0]
