"""The common base of links: retrievers around one or several other ones."""

import asyncio
import copy
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, SerializeAsAny, ValidationError, model_validator

from r1searcher.common.records import problem_in
from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError
from r1searcher.retrieval.base import (
    EngineSettings,
    EpisodeContext,
    Health,
    Retriever,
    SearchResult,
    Span,
    bind,
    passage_of,
)
from r1searcher.retrieval.registry import settings_of, settings_of_table


class Link:
    """A retriever around another one: passes on searches, health, the end and the episode; a subclass adds to them.

    The copy from `for_episode` shares every attribute except `_retriever`.
    """

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        return await self._retriever.search(queries, top_k)

    def for_episode(self, episode: EpisodeContext) -> Self:
        inner = bind(self._retriever, episode)
        if inner is self._retriever:
            return self
        bound = copy.copy(self)
        bound._retriever = inner
        return bound

    async def passage(self, id_: str) -> Passage | None:
        return await passage_of(self._retriever, id_)

    async def health(self) -> Health:
        return await self._retriever.health()

    async def aclose(self) -> None:
        await self._retriever.aclose()


def _inner(value: Any) -> Any:
    """The settings of a retriever given as a URL or a table. Raises `ValueError` with a sentence."""
    try:
        if isinstance(value, str):
            return settings_of(value)
        if not isinstance(value, Mapping):
            return value
        table = dict(value)
        kind = table.pop("kind", "")
        if not kind and set(table) == {"url"}:
            return settings_of(table["url"])
        return settings_of_table(kind, table)
    except InputError as error:
        raise ValueError(str(error)) from None
    except ValidationError as error:
        raise ValueError(problem_in(error)) from None


Inner = Annotated[SerializeAsAny[EngineSettings], BeforeValidator(_inner)]
"""Another retriever: a URL, or a table with its kind and keys."""


class ArgumentSettings(EngineSettings):
    """The settings of what follows ` -> ` in a chain: its `url` is "NAME" or "NAME:ARGUMENT"."""

    @property
    def argument(self) -> str:
        """What follows the name in a chain; empty if nothing does."""
        return self.url.partition(":")[2]

    @classmethod
    def keys_of(cls, argument: str) -> Mapping[str, Any]:
        """The keys that an argument is short for. Raises `ValueError` with a sentence."""
        return {}

    @model_validator(mode="before")
    @classmethod
    def _with_argument(cls, table: Any) -> Any:
        """Keys that are given win against the argument."""
        url = table.get("url") if isinstance(table, Mapping) else None
        argument = url.partition(":")[2] if isinstance(url, str) else ""
        return {**cls.keys_of(argument), **table} if argument else table


class LinkSettings(ArgumentSettings):
    """The settings of a link around one other retriever, `of`. A subclass defines `wrap`."""

    takes_several: ClassVar[bool] = False

    of: Inner
    """The retriever that this link gets its passages from: a URL, or a table with its kind and keys."""

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.environment, *self.of.variables)))

    @property
    def needs_episode(self) -> bool:
        return self.of.needs_episode

    @property
    def shown(self) -> str:
        return f"{self.of.shown} -> {super().shown}"

    def absolute(self) -> Self:
        return self.model_copy(update={"of": self.of.absolute()})

    def wrap(self, retriever: Retriever) -> Retriever:
        """The link around an open retriever. Raises `InputError` for settings that cannot work."""
        raise NotImplementedError(f"{type(self).__name__} does not define how to wrap a retriever")

    def open(self) -> Retriever:
        return self.wrap(self.of.open())

    def open_checked(self) -> Retriever:
        return self.wrap(self.of.open_checked())


def fingerprint_of(settings: EngineSettings, *inner: Health) -> str:
    """Changes with the own settings of a link and with what it is made of; empty if one of those has no fingerprint."""
    if not all(health.fingerprint for health in inner):
        return ""
    own = settings.model_dump(mode="json", exclude={"of", "url"})
    parts = json.dumps([own, [health.fingerprint for health in inner]], sort_keys=True)
    return hashlib.sha256(parts.encode()).hexdigest()


class Stopwatch:
    """The span of a link: its own seconds, without those of the retrievers inside."""

    def __init__(self, link: str) -> None:
        self._link = link
        self._started = time.perf_counter()

    def span(self, *, cached: bool = False, cost_usd: float = 0.0) -> Span:
        return Span(self._link, time.perf_counter() - self._started, cost_usd, cached)


async def close_all(retrievers: Sequence[Retriever]) -> None:
    await asyncio.gather(*(retriever.aclose() for retriever in retrievers))
