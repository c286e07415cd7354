"""Whether search engines can answer a set of questions at all: recall of the answer in what they find.

A corpus without the answers is the most common cause of a reward that stays at zero, so measure recall before training.
The question itself is the query, which finds less than a trained model's queries: recall is a lower bound.
`corpus_answers.py` distinguishes what the corpus does not contain from what is not found.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from r1searcher.evaluation.corpus_answers import answer_text
from r1searcher.questions.question import Question
from r1searcher.report.intervals import Difference, Interval, interval, paired_difference
from r1searcher.retrieval.base import EpisodeContext, Hit, Retriever, bind, search_all
from r1searcher.rewards.metrics import has_words, is_yes_no, normalize

CUTOFFS = (1, 3, 5, 10)
DEPTH = max(CUTOFFS)
"""Passages that are requested for each question."""


def within(cutoff: int, rank: int | None) -> float:
    """1 if a gold answer is in the first `cutoff` passages, otherwise 0."""
    return float(rank is not None and rank <= cutoff)


def reciprocal(rank: int | None) -> float:
    """1 / rank, or 0 if no passage has a gold answer."""
    return 1 / rank if rank else 0.0


RECALLS = {f"recall@{cutoff}": partial(within, cutoff) for cutoff in CUTOFFS}
MEASURES: Mapping[str, Callable[[int | None], float]] = {**RECALLS, f"MRR@{DEPTH}": reciprocal}
"""What is computed from the rank of the first passage with a gold answer, per question."""


@dataclass(frozen=True, slots=True)
class Search:
    """The search for one question: the rank of the first passage with a gold answer, or None; its time from call to
    result; its cost; whether it was answered from a recording."""

    rank: int | None
    seconds: float
    cost_usd: float
    cached: bool


@dataclass(frozen=True, slots=True)
class Recall:
    """The searches of one retriever, one per question."""

    searches: tuple[Search, ...]

    def values(self, measure: str, chosen: Sequence[bool] | None = None) -> list[float]:
        """The measure of every question, or of the chosen ones."""
        ranks = [search.rank for search in self.searches]
        return [MEASURES[measure](rank) for place, rank in enumerate(ranks) if chosen is None or chosen[place]]

    def mean(self, measure: str, chosen: Sequence[bool] | None = None) -> Interval:
        """Raises `ValueError` if there is no question."""
        return interval(self.values(measure, chosen))

    def difference(self, other: "Recall", measure: str) -> Difference:
        """This one minus another on the same questions."""
        return paired_difference(other.values(measure), self.values(measure))

    def milliseconds(self, quantile: float) -> float:
        """A quantile of the time per search, interpolated linearly."""
        return float(np.quantile([1000 * search.seconds for search in self.searches], quantile))

    @property
    def usd_per_1000(self) -> float:
        """What 1,000 searches cost on average, in US dollars."""
        return 1000 * sum(search.cost_usd for search in self.searches) / len(self.searches)

    @property
    def cached(self) -> int:
        """Searches that were answered from a recording."""
        return sum(search.cached for search in self.searches)


def measurable(questions: Sequence[Question]) -> list[Question]:
    """Without the questions whose answer is yes or no: almost any passage contains a "no"."""
    return [question for question in questions if not all(map(is_yes_no, question.gold_answers))]


async def measure(
    retriever: Retriever,
    questions: Sequence[Question],
    concurrency: int = 1,
    on_search: Callable[[], None] = lambda: None,
) -> Recall:
    """Search for each question's text, `concurrency` at a time, and find the rank of its answer.

    Raises the error of a search: a failed one is never a miss.
    """
    searches: dict[int, Search] = {}
    waiting = iter(enumerate(questions))

    async def work() -> None:
        for place, question in waiting:
            searches[place] = await _searched(retriever, question)
            on_search()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(questions))):
                group.create_task(work())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return Recall(tuple(searches[place] for place in range(len(questions))))


async def _searched(retriever: Retriever, question: Question) -> Search:
    episode = EpisodeContext(question=question.text, gold_answers=question.gold_answers, id=question.id)
    bound = bind(retriever, episode)
    started = time.perf_counter()
    (result,) = await search_all(bound, [question.text], DEPTH)
    seconds = time.perf_counter() - started
    rank = first_rank(question.gold_answers, result.require_hits())
    cost, cached = sum(span.cost_usd for span in result.spans), any(span.cached for span in result.spans)
    return Search(rank, seconds, cost, cached)


def first_rank(gold_answers: Sequence[str], hits: Sequence[Hit]) -> int | None:
    """The rank, from 1, of the first passage that contains a gold answer as whole words, after normalization."""
    wanted = [normalize(gold) for gold in gold_answers]
    for rank, hit in enumerate(hits, 1):
        text = answer_text(hit.passage)
        if any(has_words(text, gold) for gold in wanted):
            return rank
    return None
