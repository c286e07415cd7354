"""Whether a search engine can answer a set of questions at all: recall of the answer in what it finds.

A corpus that does not hold the answers is the commonest cause of a reward that stays at zero, so this is looked at
before anything is trained. The question itself is the query, which is harder than what a trained model asks: a low
figure means little coverage, a high one is a lower bound.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from r1searcher.episodes.questions import Question
from r1searcher.evaluation.intervals import Interval, interval
from r1searcher.retrieval.base import Hit, Retriever
from r1searcher.rewards.metrics import normalise

CUTOFFS = (1, 3, 5, 10)
_QUERIES_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Recall:
    """`places` holds, a question, the place of the first passage with a gold answer, or None. Questions whose answer is
    yes or no are left out and counted in `closed`: any passage holds a "no"."""

    places: tuple[int | None, ...]
    closed: int

    def at(self, cutoff: int) -> Interval:
        """How many of the questions are answered in their first `cutoff` passages."""
        return interval([float(place is not None and place <= cutoff) for place in self.places])


async def measure(retriever: Retriever, questions: Sequence[Question]) -> Recall:
    """Where the answers stand in what is found for the questions themselves."""
    open_ = [question for question in questions if not _is_closed(question)]
    places: list[int | None] = []
    for start in range(0, len(open_), _QUERIES_AT_ONCE):
        batch = open_[start : start + _QUERIES_AT_ONCE]
        hits_of = await retriever.search([question.text for question in batch], max(CUTOFFS))
        places += [first_place(question.golds, hits) for question, hits in zip(batch, hits_of, strict=True)]
    return Recall(tuple(places), len(questions) - len(open_))


def first_place(golds: Sequence[str], hits: Sequence[Hit]) -> int | None:
    """The place, from 1, of the first passage that holds a gold answer as whole words, after normalisation."""
    wanted = [f" {normal} " for gold in golds if (normal := normalise(gold))]
    for place, hit in enumerate(hits, 1):
        passage = f" {normalise(f'{hit.passage.title} {hit.passage.text}')} "
        if any(gold in passage for gold in wanted):
            return place
    return None


def _is_closed(question: Question) -> bool:
    return all(normalise(gold) in ("yes", "no") for gold in question.golds)
