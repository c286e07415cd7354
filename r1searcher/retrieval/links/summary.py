"""Summaries of documents for their query, by a model at an OpenAI-compatible URL (R1-Searcher's online setting).

A document that does not help is left out: that is a result. A summary that fails is tried again, and then the query's
error.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from typing import ClassVar, Literal

from pydantic import Field

from r1searcher.common.chat import ChatServer, filled
from r1searcher.common.http import Limits
from r1searcher.common.retry import RetryPolicy
from r1searcher.corpora.passage import Passage
from r1searcher.errors import RetrieverError
from r1searcher.retrieval.base import Health, Hit, Retriever, SearchResult, Span, query_line, search_all
from r1searcher.retrieval.links.base import Link, LinkSettings, fingerprint_of

KEY_VARIABLE = "R1S_SUMMARY_KEY"
"""Environment variable with the endpoint's key; OPENAI_API_KEY is used if it is not set."""

NOTHING = "nothing"


class Settings(LinkSettings):
    """`URL -> summary:http://host:8000/v1`, with the key `model`."""

    environment: ClassVar[tuple[str, ...]] = (KEY_VARIABLE, "OPENAI_API_KEY")

    kind: Literal["summary"] = "summary"

    server: str = ""
    """URL of the server, if it is not in the chain's URL."""

    model: str = Field(min_length=1)
    """Name of the model at the server."""

    words: int = Field(80, ge=1, le=10_000)
    """Words that the model is asked to write at most."""

    max_document_words: int = Field(2000, ge=1, le=1_000_000)
    """Words of a document that the model reads."""

    max_tokens: int = Field(512, ge=8, le=100_000)
    """Maximum tokens of a summary."""

    tries: int = Field(3, ge=1, le=20)
    """Tries for a summary."""

    timeout_s: float = Field(120.0, gt=0, le=86_400)
    """Time limit of one request, in seconds."""

    connections: int = Field(256, ge=1, le=10_000)
    """Maximum concurrent requests; further ones wait."""

    @property
    def address(self) -> str:
        return self.server or self.argument

    def wrap(self, retriever: Retriever) -> Retriever:
        return Summary(retriever, self)


class Summary(Link):
    """Replaces the text of each hit by its summary for the query. Greedy decoding, so that a cache is rarely needed."""

    def __init__(self, retriever: Retriever, settings: Settings) -> None:
        super().__init__(retriever)
        self._settings = settings
        self._server = ChatServer(
            settings.address,
            settings.model,
            what="the server of summaries",
            variables=(KEY_VARIABLE, "OPENAI_API_KEY"),
            limits=Limits(settings.timeout_s, size=4 << 20, connections=settings.connections),
            error=RetrieverError,
        )
        self._retries = RetryPolicy(tries=settings.tries, longest_pause=5.0)
        prompt = resources.files("r1searcher.retrieval.links") / "prompts" / "summary.txt"
        self._prompt = prompt.read_text("utf-8").strip()

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        found = await search_all(self._retriever, queries, top_k)
        calls = (self._summarized(query, result) for query, result in zip(queries, found, strict=True))
        return list(await asyncio.gather(*calls))

    async def health(self) -> Health:
        """Also raises `RetrieverError` if the server of summaries cannot be reached."""
        health = await self._retriever.health()
        await self._server.models()
        return Health(f"{health.name} -> summary", health.passages, fingerprint_of(self._settings, health))

    async def aclose(self) -> None:
        await super().aclose()
        await self._server.aclose()

    async def _summarized(self, query: str, result: SearchResult) -> SearchResult:
        if result.error is not None or not result.hits:
            return result
        started = time.perf_counter()
        try:
            hits = await asyncio.gather(*(self._summary(query, hit) for hit in result.hits))
        except RetrieverError as error:
            return SearchResult(error=error, spans=result.spans)
        kept = tuple(hit for hit in hits if hit is not None)
        unhelpful = len(hits) - len(kept)
        link = f"summary ({unhelpful} of no help)" if unhelpful else "summary"
        return replace(result, hits=kept, spans=(*result.spans, Span(link, time.perf_counter() - started)))

    async def _summary(self, query: str, hit: Hit) -> Hit | None:
        values = {
            "words": str(self._settings.words),
            "query": query_line(query),
            "title": hit.passage.title,
            "text": " ".join(hit.passage.text.split()[: self._settings.max_document_words]),
        }
        prompt = filled(self._prompt, values)

        async def attempt() -> str:
            said = await self._server.ask(prompt, str.strip, temperature=0, max_tokens=self._settings.max_tokens)
            if not said:
                raise RetrieverError(f"{self._server.client.what} wrote an empty summary", transient=True)
            return said

        said = await self._retries.acall(attempt)
        if said.strip(" .*\"'\n").casefold() == NOTHING:
            return None
        text = " ".join(said.encode("utf-8", "replace").decode().split())
        return Hit(Passage(hit.passage.id, hit.passage.title, text), hit.score)
