"""The interface of search engines."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, Self, runtime_checkable

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from r1searcher.common.http import shown_url
from r1searcher.common.section import Section
from r1searcher.corpora.passage import Passage
from r1searcher.errors import RetrieverError


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that a query found, with the engine's own score (higher is better)."""

    passage: Passage
    score: float


@dataclass(frozen=True, slots=True)
class Span:
    """The cost of a query in one link of a retriever (an engine, or a wrapper around it).

    `seconds` are those of the call that answered the query, possibly together with others. `cached`: the result came
    from a cache.
    """

    link: str
    seconds: float
    cost_usd: float = 0.0
    cached: bool = False


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The outcome of one query: its hits, best first, or its own error.

    No hits and no error means that nothing matched. Raises `ValueError` for hits together with an error.
    """

    hits: tuple[Hit, ...] = ()
    error: RetrieverError | None = None
    spans: tuple[Span, ...] = ()

    def __post_init__(self) -> None:
        if self.error is not None and self.hits:
            raise ValueError("a search result has hits or an error, not both")

    def require_hits(self) -> tuple[Hit, ...]:
        """The hits. Raises the query's error: a failed search is never an empty result."""
        if self.error is not None:
            raise self.error
        return self.hits


@dataclass(frozen=True, slots=True)
class Health:
    """A retriever's self-description.

    `passages` is how many it searches, None if unknown. `fingerprint` changes whenever the same query may find
    something else (for an index: a hash of corpus and settings); empty if there is none.
    """

    name: str
    passages: int | None = None
    fingerprint: str = ""


class IndexDamagedError(RetrieverError):
    """The files of an index have changed since it was built: searches fail until they are restored."""


class NoLookupError(RetrieverError):
    """A retriever cannot look up passages by id."""

    def __init__(self) -> None:
        super().__init__("the search engine cannot look up a passage by its id")


def is_outage(error: BaseException) -> bool:
    """Whether the engine is down or its index damaged, so that the same search may succeed later."""
    return isinstance(error, IndexDamagedError) or (isinstance(error, RetrieverError) and error.transient)


class Retriever(Protocol):
    """A search engine. All methods are coroutines and never block their event loop.

    `r1searcher.retrieval.contract` checks what the type system cannot.
    """

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        """One result per query, in order: at most `top_k` hits, equal scores in corpus order.

        A query that fails alone has its `RetrieverError` in its result; `transient` says whether a retry may help.
        Raises `RetrieverError` if the engine could not answer at all.
        """
        ...

    async def health(self) -> Health:
        """Raises `RetrieverError` if the engine cannot be reached."""
        ...

    async def aclose(self) -> None:
        """Ends the engine's connections and threads. May be called again."""
        ...


@runtime_checkable
class PassageLookup(Protocol):
    """A retriever that can also look up a passage by its id, or passes that on to the one inside."""

    async def passage(self, id_: str) -> Passage | None:
        """The passage with that id, in corpus order the first one; None if there is none.

        Raises `NoLookupError` if the retriever inside, or its index, has no lookup, and `RetrieverError` like a search.
        """
        ...


async def passage_of(retriever: Retriever, id_: str) -> Passage | None:
    """`PassageLookup.passage` of any retriever; raises `NoLookupError` if it does not have it."""
    if not isinstance(retriever, PassageLookup):
        raise NoLookupError
    return await retriever.passage(id_)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeContext:
    """The episode that a search belongs to.

    `step` is the training step, from 1, or None in an evaluation; `search` the number of the search in its episode,
    from 1.
    """

    question: str
    gold_answers: tuple[str, ...] = ()
    id: str = ""
    step: int | None = None
    search: int = 1


@runtime_checkable
class EpisodeBound(Protocol):
    """A retriever that needs the episode: a simulated engine, or a wrapper that passes the episode on."""

    def for_episode(self, episode: EpisodeContext) -> Retriever:
        """The retriever for one search of that episode. It shares this one's connections and is not closed itself."""
        ...


def bind(retriever: Retriever, episode: EpisodeContext) -> Retriever:
    """The retriever for one search of an episode; unchanged if it does not need the episode.

    So question, gold answers and step reach only engines with `for_episode`.
    """
    return retriever.for_episode(episode) if isinstance(retriever, EpisodeBound) else retriever


async def search_all(retriever: Retriever, queries: Sequence[str], top_k: int) -> list[SearchResult]:
    """One result per query. Also raises `RetrieverError` if the engine returned another number of results."""
    results = await retriever.search(queries, top_k)
    if len(results) != len(queries):
        raise RetrieverError(f"the search engine returned {len(results)} results for {len(queries)} queries")
    return results


async def hits_of(retriever: Retriever, queries: Sequence[str], top_k: int) -> list[tuple[Hit, ...]]:
    """The hits of every query. Raises the error of the first query that has one."""
    return [result.require_hits() for result in await search_all(retriever, queries, top_k)]


def _is_text(value: Any) -> Any:
    if not isinstance(value, str):
        raise PydanticCustomError("text", "must be text")
    return value


if TYPE_CHECKING:
    Url = str
else:
    Url = Annotated[Any, AfterValidator(_is_text)]
    """Any string: names of folders may contain what pydantic's own type rejects."""


class EngineSettings(Section):
    """The settings of one kind of search engine, and how to open it. Named by an entry point `kind = "module:class"`.

    A subclass gives `kind` its name as default and adds its own fields; `[retrieval]` then takes them as keys:

        [retrieval]
        kind = "mine"
        min_words = 2

    A URL `mine:anything` or `mine://anything` is short for `kind = "mine"` with that `url`.
    """

    environment: ClassVar[tuple[str, ...]] = ()
    """Environment variables that the engine reads, such as its keys. Only these reach the workers of a cluster."""

    kind: str
    """The name under which the engine is registered."""

    url: Url = ""
    """The URL as it was given, with its scheme."""

    unchecked: ClassVar[frozenset[str]] = frozenset({"url"})  # checked by the engine, whose errors hide secrets

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables of this retriever, with those of the ones it is made of."""
        return self.environment

    @property
    def needs_episode(self) -> bool:
        """Whether a result depends on the episode that searches, not on the query alone."""
        return False

    @property
    def shown(self) -> str:
        """The retriever as a URL for people: without secrets."""
        return shown_url(self.url) or self.kind

    def absolute(self) -> Self:
        """The same settings, valid in any working directory; overridden by kinds that have paths."""
        return self

    def open(self) -> Retriever:
        """Raises `InputError` for settings that cannot work. Connections may be opened later, by the first search."""
        raise NotImplementedError(f"{type(self).__name__} does not define how to open a {self.kind} retriever")

    def open_checked(self) -> Retriever:
        """Like `open`, after all checks of the engine, even slow ones: for the start of a server."""
        return self.open()

    def open_in_server(self, fingerprint: str) -> Retriever:
        """Like `open`, for a server process, which may outlive the engine. `fingerprint`: that of the checked one."""
        return self.open()


MAX_TOP_K = 1000
"""Passages per query that commands and the server accept."""

MAX_QUERY_CHARS = 4096
"""The searched part of a query; the rest is ignored. A turn of 512 tokens is about half of it."""


def clean_query(query: str) -> str:
    """A query that every engine accepts: cut to `MAX_QUERY_CHARS`, without lone surrogates, which are not UTF-8."""
    return query[:MAX_QUERY_CHARS].encode("utf-8", "replace").decode()


def query_line(query: str) -> str:
    """A query for a language model: as `clean_query` returns it, on one line."""
    return " ".join(clean_query(query).split())
