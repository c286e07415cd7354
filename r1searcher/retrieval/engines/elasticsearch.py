"""Elasticsearch as a retriever; it ranks and scores like the embedded index.

`retrieval/indexing/elasticsearch.py` fills it, `retrieval/elasticsearch_client.py` describes its documents.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field, FiniteFloat, StrictStr

from r1searcher.errors import InputError, RetrieverError
from r1searcher.retrieval.base import EngineSettings, Health, Hit, Retriever, SearchResult, Span, clean_query
from r1searcher.retrieval.batching import Batcher
from r1searcher.retrieval.elasticsearch_client import (
    CONNECTIONS,
    ENVIRONMENT,
    Address,
    Label,
    Source,
    boundary,
    error_of,
    malformed,
    read,
    read_label,
    translated,
)

MAX_TOP_K = 10_000
"""Elasticsearch's `max_result_window`."""


class Settings(EngineSettings):
    """`es://host:9200/name` or `es+https://host:9200/name`, filled by `r1s index-corpus`."""

    environment: ClassVar[tuple[str, ...]] = ENVIRONMENT

    kind: Literal["es"] = "es"

    timeout_s: float = Field(60.0, gt=0, le=86_400)
    """Time limit of one request, in seconds."""

    def open(self) -> Retriever:
        return Batcher(ElasticsearchIndex(self), CONNECTIONS)


class _Hit(BaseModel):
    """`sort` is the score, then the index in the corpus."""

    index: StrictStr = Field(alias="_index")
    source: Source = Field(alias="_source")
    sort: tuple[FiniteFloat, int]


class _Hits(BaseModel):
    hits: list[_Hit]


class _Shards(BaseModel):
    failed: int


class _Answer(BaseModel):
    """The result of one query of an msearch, or its error."""

    error: Any = None
    status: int = 500
    timed_out: bool = False
    shards: _Shards = Field(_Shards(failed=0), alias="_shards")
    hits: _Hits | None = None


class _Answers(BaseModel):
    responses: list[_Answer]


class ElasticsearchIndex:
    """An index that `r1s index-corpus` filled. Searches run in threads; all queries of a call are one request, and
    `Batcher` limits their number."""

    def __init__(self, settings: Settings) -> None:
        self._address = Address.parse(settings.url)
        self._client = self._address.connect(settings.timeout_s)
        self._pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="elasticsearch")
        self._labels: dict[str, Label] = {}

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        if not queries or top_k < 1:
            return [SearchResult() for _ in queries]
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._search, queries, top_k)

    async def health(self) -> Health:
        label = await asyncio.get_running_loop().run_in_executor(self._pool, self._reload)
        return Health(
            f"{self._address.server}/{self._address.name}", label.manifest.passages, label.manifest.fingerprint
        )

    async def aclose(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _reload(self) -> Label:
        """The label of the index that the alias points to now."""
        with boundary(self._address):
            label = read_label(self._client, self._address)
        self._labels[label.index] = label
        return label

    def _search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        if top_k > MAX_TOP_K:
            raise InputError(f"Elasticsearch returns at most {MAX_TOP_K:,} passages per query, not {top_k:,}.")
        label = next(reversed(self._labels.values()), None) or self._reload()
        lines: list[Mapping[str, Any]] = []
        for query in queries:
            lines += ({"index": self._address.name, **label.search_options}, self._body(label, query, top_k))
        started = time.perf_counter()
        with boundary(self._address):
            body = self._client.msearch(searches=lines).body
        spans = (Span("es", time.perf_counter() - started),)
        answers = read(self._address, _Answers, body).responses
        if len(answers) != len(queries):
            raise malformed(self._address, f"{len(answers)} answers to {len(queries)} queries")
        return [self._result(answer, top_k, spans) for answer in answers]

    def _result(self, answer: _Answer, top_k: int, spans: tuple[Span, ...]) -> SearchResult:
        """Hits or the error of one query: a query that Elasticsearch rejects does not affect the others."""
        try:
            return SearchResult(tuple(self._hits(answer)[:top_k]), spans=spans)
        except RetrieverError as error:
            return SearchResult(error=error, spans=spans)

    def _body(self, label: Label, query: str, top_k: int) -> Mapping[str, Any]:
        text = clean_query(query)
        weight = label.manifest.settings.title_weight
        match: Mapping[str, Any] = {"match": {"contents": text}}
        if weight is not None:
            should = [{"match": {"title": {"query": text, "boost": weight}}}, {"match": {"text": text}}]
            match = {"bool": {"should": should}}
        return {
            "size": top_k,
            "query": match,
            "sort": [{"_score": "desc"}, {"ordinal": "asc"}],
            "_source": ["id", "title", "text"],
            "track_total_hits": False,
        }

    def _hits(self, answer: _Answer) -> list[Hit]:
        if answer.error is not None:
            raise translated(self._address, answer.status, *error_of({"error": answer.error}))
        if answer.timed_out or answer.shards.failed:
            raise RetrieverError(f"{self._address.where} could not search all of its shards.", transient=True)
        if answer.hits is None:
            raise malformed(self._address, "an answer has no hits")
        hits = []
        for hit in answer.hits.hits:
            label = self._labels.get(hit.index) or self._reload()  # the alias was moved in the meantime
            hits.append(Hit(hit.source.passage, hit.sort[0] / (label.manifest.settings.k1 + 1)))
        return hits
