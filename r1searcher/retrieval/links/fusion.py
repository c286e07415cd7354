"""Fusion: one ranking from those of several retrievers, on the client.

- reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009): a passage's score is the sum of weight / (k + rank)
  over the rankings that contain it; ranks count from 1;
- weighted scores: each ranking's scores are scaled to 0…1 per query, and a passage's score is the weighted sum. A
  passage that a ranking does not contain gets 0 from it.
"""

import asyncio
import copy
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from r1searcher.corpora.passage import Passage
from r1searcher.retrieval.base import (
    MAX_TOP_K,
    EpisodeContext,
    Health,
    Hit,
    Retriever,
    SearchResult,
    bind,
    search_all,
)
from r1searcher.retrieval.links.base import ArgumentSettings, Inner, Stopwatch, close_all, fingerprint_of

_Key = tuple[str, str]


class Settings(ArgumentSettings):
    """`A + B -> fusion`, or with weights of scores `A + B -> fusion:0.7,0.3`."""

    takes_several: ClassVar[bool] = True

    kind: Literal["fusion"] = "fusion"

    of: tuple[Inner, ...] = Field(min_length=2, strict=False)
    """The retrievers whose rankings are fused: URLs, or tables with kind and keys."""

    method: Literal["rrf", "scores"] = "rrf"
    """rrf: reciprocal rank fusion; scores: a weighted sum of the scores, each scaled to 0…1 per query."""

    weights: tuple[Annotated[float, Field(ge=0, le=1000)], ...] = Field((), strict=False)
    """One weight per retriever; equal ones if empty."""

    k: float = Field(60.0, ge=0, le=10_000)
    """The constant of reciprocal rank fusion; with a larger one the first ranks count less."""

    candidates: int = Field(50, ge=1, le=MAX_TOP_K)
    """Passages asked of each retriever; at least as many as are requested of the fusion."""

    @classmethod
    def keys_of(cls, argument: str) -> Mapping[str, Any]:
        """Weights after the name are short for those of scores."""
        try:
            weights = [float(part) for part in argument.split(",")]
        except ValueError:
            raise ValueError(f"fusion:{argument[:100]} is not fusion:WEIGHT,WEIGHT with numbers") from None
        return {"method": "scores", "weights": weights}

    @model_validator(mode="after")
    def _one_weight_each(self) -> Self:
        if self.weights and len(self.weights) != len(self.of):
            raise ValueError(f"{len(self.weights)} weights for {len(self.of)} retrievers: give one each")
        if self.weights and not any(self.weights):
            raise ValueError("all weights are 0: nothing could be ranked")
        return self

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for one in self.of for name in one.variables))

    @property
    def needs_episode(self) -> bool:
        return any(one.needs_episode for one in self.of)

    @property
    def shown(self) -> str:
        return f"{' + '.join(one.shown for one in self.of)} -> {super().shown}"

    def absolute(self) -> Self:
        return self.model_copy(update={"of": tuple(one.absolute() for one in self.of)})

    def open(self) -> Retriever:
        return self._around([one.open for one in self.of])

    def open_checked(self) -> Retriever:
        return self._around([one.open_checked for one in self.of])

    def _around(self, openers: Sequence[Any]) -> Retriever:
        return Fusion([opener() for opener in openers], self)


class Fusion:
    """One ranking from those of several retrievers, which are searched at the same time.

    A passage is the same in two rankings if id and title are. If one of the rankings has an error, the query has it
    too: a ranking without one of its parts would be another one. Equal scores keep the order of the retrievers, then
    of their ranks.
    """

    def __init__(self, retrievers: Sequence[Retriever], settings: Settings) -> None:
        self._retrievers = tuple(retrievers)
        self._settings = settings
        self._weights = settings.weights or (1.0,) * len(self._retrievers)

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        wanted = max(self._settings.candidates, top_k)
        rankings = await _together([search_all(one, queries, wanted) for one in self._retrievers])
        return [self._fused(of_query, top_k) for of_query in zip(*rankings, strict=True)]

    def for_episode(self, episode: EpisodeContext) -> Self:
        bound = copy.copy(self)
        bound._retrievers = tuple(bind(one, episode) for one in self._retrievers)
        return bound

    async def health(self) -> Health:
        """The most passages that one of the retrievers searches; their corpora may be the same."""
        all_ = await _together([one.health() for one in self._retrievers])
        sizes = [one.passages for one in all_ if one.passages is not None]
        name = f"{' + '.join(one.name for one in all_)} -> {self._settings.method}"
        return Health(name, max(sizes, default=None), fingerprint_of(self._settings, *all_))

    async def aclose(self) -> None:
        await close_all(self._retrievers)

    def _fused(self, results: Sequence[SearchResult], top_k: int) -> SearchResult:
        watch = Stopwatch("fusion")
        spans = tuple(span for result in results for span in result.spans)
        if error := next((result.error for result in results if result.error is not None), None):
            return SearchResult(error=error, spans=spans)
        scores: dict[_Key, float] = {}
        passages: dict[_Key, Passage] = {}
        for weight, result in zip(self._weights, results, strict=True):
            first: dict[_Key, float] = {}  # a passage that a ranking has twice counts once, by its better rank
            for hit, score in zip(result.hits, self._scores(result.hits), strict=True):
                key = (hit.passage.id, hit.passage.title)
                passages.setdefault(key, hit.passage)
                first.setdefault(key, score)
            for key, score in first.items():
                scores[key] = scores.get(key, 0.0) + weight * score
        ranked = sorted(scores, key=lambda key: -scores[key])[: max(top_k, 0)]
        return SearchResult(tuple(Hit(passages[key], scores[key]) for key in ranked), spans=(*spans, watch.span()))

    def _scores(self, hits: Sequence[Hit]) -> list[float]:
        if self._settings.method == "rrf":
            return [1 / (self._settings.k + rank) for rank in range(1, len(hits) + 1)]
        low, high = min((h.score for h in hits), default=0.0), max((h.score for h in hits), default=0.0)
        return [(hit.score - low) / (high - low) if high > low else 1.0 for hit in hits]


async def _together(calls: Sequence[Any]) -> list[Any]:
    """The results of all calls. If one fails the others are ended before its error is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
