"""Requests and responses of the common retrieval protocols, as their public clients send and read them.

    Search-R1    search_r1/llm_agent/generation.py, search_r1/search/retrieval_server.py
    SkyRL        skyrl-gym/skyrl_gym/tools/search.py: one `query` per request
    ASearcher    tools/search_utils.py, tools/local_retrieval_server.py: documents with a `url`, pages by URL
    R1-Searcher  OpenRLHF-RAG/…/experience_maker.py, evaluation/eval_search_loacl.py, train/wiki_corpus_load.py

Each request is validated by one model here. Types are as loose as in the reference servers, also pydantic models:
"3" and 3.0 are numbers, 1 and "true" are true, and `topk` 0 or null means the default.
"""

import zlib
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar
from urllib.parse import quote, unquote

from pydantic import BaseModel, BeforeValidator, FailFast, Field, StringConstraints, ValidationError, model_validator

from r1searcher.common.records import first_of
from r1searcher.corpora.passage import Passage
from r1searcher.retrieval.base import MAX_TOP_K, Hit, clean_query

DEFAULT_TOP_K = 3
MAX_PASSAGES = 100_000
"""Queries times passages per query in one request. R1-Searcher's client sends up to 20,000 queries, 5 passages each."""
MAX_URLS = 100
_PASSAGE_URL = "passage:"


def _cleaned(value: Any) -> Any:
    return clean_query(value) if isinstance(value, str) else value


def _top_k(value: Any) -> Any:
    return DEFAULT_TOP_K if value is None or value == 0 or value == "0" else value


_Query = Annotated[str, BeforeValidator(_cleaned)]
_TopK = Annotated[int, BeforeValidator(_top_k), Field(ge=1, le=MAX_TOP_K)]
_Queries = Annotated[list[_Query], FailFast()]
_Request = TypeVar("_Request", bound=BaseModel)


class BadRequest(Exception):
    """A request that no retry can fix: the response status, and a sentence."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class SearchRequest(BaseModel):
    """`/retrieve`: Search-R1's and ASearcher's `queries`, or SkyRL's `query`."""

    queries: _Queries
    topk: _TopK = DEFAULT_TOP_K
    return_scores: bool = False

    @model_validator(mode="before")
    @classmethod
    def _one_query(cls, body: Any) -> Any:
        if isinstance(body, dict) and "query" in body and "queries" not in body:
            return {**body, "queries": [body["query"]]}
        return body


class QueriesRequest(BaseModel):
    """`/queries`: R1-Searcher's."""

    queries: _Queries
    k: _TopK = DEFAULT_TOP_K


class AccessRequest(BaseModel):
    """`/access`: ASearcher's pages by URL."""

    urls: Annotated[list[Annotated[str, StringConstraints(max_length=10_000)]], FailFast()] = Field(max_length=MAX_URLS)


def validated(model: type[_Request], body: Any) -> _Request:
    """Raises `BadRequest` with a sentence that names the field."""
    if not isinstance(body, dict):
        raise BadRequest(422, 'The request must be an object, for example {"queries": ["capital of Norway"]}.')
    try:
        return model.model_validate(body)
    except ValidationError as error:
        field, message = first_of(error)
        raise BadRequest(422, f"`{field}`: {message[:1].lower()}{message[1:]}.") from error


def require_affordable(queries: int, top_k: int) -> None:
    """Raises `BadRequest` for a request of more than `MAX_PASSAGES`."""
    if queries * top_k > MAX_PASSAGES:
        raise BadRequest(
            413,
            f"{queries:,} queries with {top_k:,} passages each are more than {MAX_PASSAGES:,} passages in one request: "
            "send fewer queries at once.",
        )


def search_r1(hits: Sequence[Hit], with_scores: bool) -> list[dict[str, Any]]:
    """One query's result, with the keys that Search-R1, SkyRL and ASearcher read."""
    documents = [_document(hit.passage) for hit in hits]
    if not with_scores:
        return documents
    return [{"document": document, "score": hit.score} for document, hit in zip(documents, hits, strict=True)]


def _document(passage: Passage) -> dict[str, Any]:
    return {"id": passage.id, "contents": f'"{passage.title}"\n{passage.text}', "url": passage_url(passage)}


def r1_searcher(hits: Sequence[Hit]) -> list[str]:
    """One query's results: lines of R1-Searcher's corpus files, `number<TAB>Title: … Text: …`.

    Its client removes the number and the space after it before it shows the row to the model. An id that is not a
    number would remain, so it is replaced by a number derived from it.
    """
    return [_line(hit.passage) for hit in hits]


def _line(passage: Passage) -> str:
    id_ = passage.id
    number = id_ if id_.isascii() and id_.isdigit() else str(zlib.crc32(id_.encode("utf-8", "replace")))
    text = f"Title: {passage.title} Text: {passage.text}".replace("\r", " ").replace("\n", " ")
    return f"{number}\t{text}"


def passage_url(passage: Passage) -> str:
    """The URL of a passage's page: its id if that is a URL, otherwise one of ours that contains id and title."""
    if _is_web(passage.id):
        return passage.id
    return f"{_PASSAGE_URL}{_quoted(passage.id)}/{_quoted(passage.title)}"


def _quoted(text: str) -> str:
    return quote(text, safe="", errors="replace")


def page_query(url: str) -> str:
    """The query that finds the passages of a page: its title; empty for a URL without one."""
    if (title := _title(url)) is not None:
        return title
    return unquote(url.rstrip("/").rpartition("/")[2]).replace("_", " ") if _is_web(url) else ""


def page(url: str, hits: Sequence[Hit]) -> dict[str, Any] | None:
    """A page as ASearcher's client reads it: all passages with its title, ordered by id if ids are numbers.

    None if none was found.
    """
    title = _title(url)
    if title is None:
        title = next((hit.passage.title for hit in hits if hit.passage.id == url), None)
    passages = {(hit.passage.id, hit.passage.text): hit.passage for hit in hits if hit.passage.title == title}
    if not passages:
        return None
    text = "\n".join(passage.text for passage in sorted(passages.values(), key=_place))
    return {"url": url, "title": title, "contents": f'"{title}"\n{text}'}


def _title(url: str) -> str | None:
    """The title in one of our own URLs; None for others."""
    if not url.startswith(_PASSAGE_URL):
        return None
    _, slash, title = url.partition("/")
    return unquote(title) if slash else None


def _is_web(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _place(passage: Passage) -> tuple[int, int]:
    """Numbers by value; other ids keep the order in which they were found."""
    return (0, int(passage.id)) if passage.id.isascii() and passage.id.isdigit() and len(passage.id) < 20 else (1, 0)
