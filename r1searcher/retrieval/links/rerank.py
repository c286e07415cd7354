"""Reranking: the passages of another retriever in the order of a model that reads query and passage together.

The model runs in this process, or at a URL of one of these protocols:

    rerank      POST {"model", "query", "documents", "top_n"} -> {"results": [{"index", "relevance_score"}, …]}
                (Cohere, Jina, vLLM)
    tei         POST {"query", "texts"} -> [{"index", "score"}, …]  (text-embeddings-inference)
    search-r1   POST {"queries", "documents", "rerank_topk", "return_scores"} -> {"result": [[{"document", "score"}]]}
                (Search-R1's reranker_server.py; it scores the documents of all queries of a request for each of them,
                so a request has one query here)
"""

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self

from pydantic import BaseModel, Field, FiniteFloat, StrictInt, StrictStr, TypeAdapter, model_validator

from r1searcher.common.http import Client, Key, Limits
from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError, RetrieverError
from r1searcher.retrieval.base import MAX_TOP_K, Health, Hit, Retriever, SearchResult, Span, query_line, search_all
from r1searcher.retrieval.links.base import Link, LinkSettings, fingerprint_of
from r1searcher.retrieval.neural.text import text_of

KEY_VARIABLE = "R1S_RERANK_KEY"
"""Environment variable with the server's key."""


class Settings(LinkSettings):
    """`URL -> rerank:MODEL`, a Hugging Face folder or name, or `URL -> rerank:http://host:8000/rerank`."""

    environment: ClassVar[tuple[str, ...]] = (KEY_VARIABLE,)

    kind: Literal["rerank"] = "rerank"

    model: str = ""
    """The model: a Hugging Face folder or name, or the name that a server expects."""

    server: str = ""
    """URL of a server; empty to run the model in this process."""

    protocol: Literal["rerank", "tei", "search-r1"] = "rerank"
    """What the server speaks: rerank (Cohere, Jina, vLLM), tei (text-embeddings-inference), search-r1."""

    candidates: int = Field(20, ge=1, le=MAX_TOP_K)
    """Passages that are reranked; at least as many as are requested."""

    device: str = "cpu"
    """Device of the model in this process: cpu, cuda, cuda:1, …"""

    batch_size: int = Field(64, ge=1, le=10_000)
    """Pairs of query and passage per forward pass."""

    max_length: int = Field(512, ge=8, le=100_000)
    """Tokens of query and passage together; longer passages are cut."""

    trust_remote_code: bool = False
    """Run Python code that comes with the model. Leave this off unless you wrote or read that code."""

    timeout_s: float = Field(120.0, gt=0, le=86_400)
    """Time limit of one request, in seconds."""

    connections: int = Field(16, ge=1, le=10_000)
    """Maximum concurrent requests; further ones wait."""

    @classmethod
    def keys_of(cls, argument: str) -> Mapping[str, Any]:
        return {"server" if argument.startswith(("http://", "https://")) else "model": argument}

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        if not self.model and not self.server:
            raise ValueError("give a model or a server: rerank:MODEL, rerank:http://host:8000/rerank")
        return self

    def wrap(self, retriever: Retriever) -> Retriever:
        return Reranker(retriever, self)


class _Scorer(Protocol):
    async def scores(self, query: str, passages: Sequence[Passage]) -> list[float]: ...

    async def aclose(self) -> None: ...


class Reranker(Link):
    """Requests `candidates` passages and returns the best ones by the model's score; equal scores keep their order."""

    def __init__(self, retriever: Retriever, settings: Settings) -> None:
        super().__init__(retriever)
        self._settings = settings
        self._scorer: _Scorer = _Server(settings) if settings.server else _Local(settings)

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        found = await search_all(self._retriever, queries, max(self._settings.candidates, top_k) if top_k > 0 else 0)
        calls = (self._reranked(query, result, top_k) for query, result in zip(queries, found, strict=True))
        return list(await asyncio.gather(*calls))

    async def health(self) -> Health:
        health = await self._retriever.health()
        name = f"{health.name} -> rerank:{self._settings.model or 'server'}"
        return Health(name, health.passages, fingerprint_of(self._settings, health))

    async def aclose(self) -> None:
        await super().aclose()
        await self._scorer.aclose()

    async def _reranked(self, query: str, result: SearchResult, top_k: int) -> SearchResult:
        if result.error is not None or not result.hits:
            return result
        started = time.perf_counter()
        passages = [hit.passage for hit in result.hits]
        try:
            scores = await self._scorer.scores(query_line(query), passages)
        except RetrieverError as error:
            return SearchResult(error=error, spans=result.spans)
        hits = [Hit(passage, score) for passage, score in zip(passages, scores, strict=True)]
        best = sorted(hits, key=lambda hit: -hit.score)[:top_k]
        return replace(result, hits=tuple(best), spans=(*result.spans, Span("rerank", time.perf_counter() - started)))


class _Local:
    """A model in this process."""

    def __init__(self, settings: Settings) -> None:
        from r1searcher.retrieval.neural.cross_encoder import CrossEncoder
        from r1searcher.retrieval.neural.shared import Shared

        self.encoder = CrossEncoder(
            settings.model,
            device=settings.device,
            max_length=settings.max_length,
            batch_size=settings.batch_size,
            remote_code=settings.trust_remote_code,
        )
        self._shared = Shared(self.encoder.scores, "cross-encoder")

    async def scores(self, query: str, passages: Sequence[Passage]) -> list[float]:
        scores = await self._shared([(query, text_of(passage)) for passage in passages])
        if not all(map(math.isfinite, scores)):
            raise RetrieverError("the cross-encoder's scores are not finite numbers: another model or device is needed")
        return scores

    async def aclose(self) -> None:
        self._shared.close()


class _Ranked(BaseModel):
    index: StrictInt
    relevance_score: FiniteFloat


class _Results(BaseModel):
    results: list[_Ranked]


class _Scored(BaseModel):
    index: StrictInt
    score: FiniteFloat


class _Document(BaseModel):
    document: StrictStr
    score: FiniteFloat


class _SearchR1(BaseModel):
    result: Annotated[list[list[_Document]], Field(min_length=1, max_length=1)]


class _Server:
    """A model at a URL."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = Client(
            settings.server,
            "the reranker",
            instead=f"set {KEY_VARIABLE}",
            key=Key.from_environment(KEY_VARIABLE),
            limits=Limits(settings.timeout_s, size=64 << 20, connections=settings.connections),
            error=RetrieverError,
        )
        if settings.protocol == "rerank" and not settings.model:
            raise InputError("set retrieval.model: the name that the reranker's server expects")
        self._ask = {"rerank": self._rerank, "tei": self._tei, "search-r1": self._search_r1}[settings.protocol]

    async def scores(self, query: str, passages: Sequence[Passage]) -> list[float]:
        return await self._ask(query, passages)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _rerank(self, query: str, passages: Sequence[Passage]) -> list[float]:
        texts = list(map(text_of, passages))
        body = {"model": self._settings.model, "query": query, "documents": texts, "top_n": len(texts)}

        def read(answer: Any) -> list[float]:
            found = _Results.model_validate(answer).results
            return _by_index([(one.index, one.relevance_score) for one in found], len(texts))

        return await self._client.post(self._settings.server, body, read)

    async def _tei(self, query: str, passages: Sequence[Passage]) -> list[float]:
        body = {"query": query, "texts": list(map(text_of, passages)), "truncate": True}

        def read(answer: Any) -> list[float]:
            found = _SCORES.validate_python(answer)
            return _by_index([(one.index, one.score) for one in found], len(passages))

        return await self._client.post(self._settings.server, body, read)

    async def _search_r1(self, query: str, passages: Sequence[Passage]) -> list[float]:
        """The server's answer has texts instead of indexes: `(Title: …) …`."""
        titles = [" ".join(passage.title.split()) for passage in passages]
        rows = [
            {"id": passage.id, "contents": f"{title}\n{passage.text}"}
            for passage, title in zip(passages, titles, strict=True)
        ]
        answered = [f"(Title: {title}) {passage.text}" for passage, title in zip(passages, titles, strict=True)]
        body = {"queries": [query], "documents": [rows], "rerank_topk": len(rows), "return_scores": True}

        def read(answer: Any) -> list[float]:
            [found] = _SearchR1.model_validate(answer).result
            by_text = {one.document: one.score for one in found}
            missing = [text for text in answered if text not in by_text]
            if missing:
                raise ValueError(f"result: a document has no score ({missing[0][:80]!r})")
            return [by_text[text] for text in answered]

        return await self._client.post(self._settings.server, body, read)


_SCORES: TypeAdapter[list[_Scored]] = TypeAdapter(list[_Scored])


def _by_index(found: Sequence[tuple[int, float]], count: int) -> list[float]:
    scores = dict(found)
    if len(found) != count or set(scores) != set(range(count)):
        raise ValueError(f"{len(found)} scores for {count} documents, each of which needs one")
    return [scores[place] for place in range(count)]
