"""Whether a search engine can answer a set of questions at all: recall of the answer in what it finds.

A corpus without the answers is the most common cause of a reward that stays at zero, so measure recall before training.
The question itself is the query, which finds less than a trained model's queries: recall is a lower bound, and a low
value suggests that the corpus covers few of the answers.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from r1searcher.common.terminal import console, json_line
from r1searcher.errors import InputError
from r1searcher.questions.named import open_dataset
from r1searcher.questions.question import Question
from r1searcher.report.intervals import Interval, interval
from r1searcher.retrieval import open_retriever
from r1searcher.retrieval.base import Hit, Retriever, hits_of
from r1searcher.rewards.metrics import has_words, is_yes_no, normalize

CUTOFFS = (1, 3, 5, 10)
_QUERIES_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Recall:
    """`ranks` has, for each question, the rank of the first passage with a gold answer, or None. Questions whose answer
    is yes or no are left out and counted in `skipped_yes_no`: almost any passage contains a "no"."""

    ranks: tuple[int | None, ...]
    skipped_yes_no: int

    def at(self, cutoff: int) -> Interval:
        """The share of questions with a gold answer in the first `cutoff` passages."""
        return interval([float(rank is not None and rank <= cutoff) for rank in self.ranks])


async def measure(retriever: Retriever, questions: Sequence[Question]) -> Recall:
    """Search for each question's text, and find the rank of its answer."""
    open_ = [question for question in questions if not _is_yes_no(question)]
    ranks: list[int | None] = []
    for start in range(0, len(open_), _QUERIES_AT_ONCE):
        batch = open_[start : start + _QUERIES_AT_ONCE]
        found = await hits_of(retriever, [question.text for question in batch], max(CUTOFFS))
        ranks += [first_rank(question.gold_answers, hits) for question, hits in zip(batch, found, strict=True)]
    return Recall(tuple(ranks), len(questions) - len(open_))


def first_rank(gold_answers: Sequence[str], hits: Sequence[Hit]) -> int | None:
    """The rank, from 1, of the first passage that contains a gold answer as whole words, after normalization."""
    wanted = [normalize(gold) for gold in gold_answers]
    for rank, hit in enumerate(hits, 1):
        passage = normalize(f"{hit.passage.title} {hit.passage.text}")
        if any(has_words(passage, gold) for gold in wanted):
            return rank
    return None


def _is_yes_no(question: Question) -> bool:
    return all(map(is_yes_no, question.gold_answers))


def run_recall(url: str, dataset: str, data_dir: Path | None, limit: int | None, as_json: bool) -> None:
    """Print how often a retriever finds a gold answer; warnings about the dataset go to standard error.

    Raises `InputError` if no question can be measured.
    """
    data = open_dataset(dataset, data_dir, limit=limit)
    for warning in data.warnings:
        console(stderr=True).print(f"{data.name}: {warning}", soft_wrap=True)

    async def run() -> Recall:
        async with aclosing(open_retriever(url)) as retriever:
            return await measure(retriever, data.questions)

    result = asyncio.run(run())
    if not result.ranks:
        raise InputError(
            f"{dataset} has only yes-or-no questions, for which recall means nothing: choose another dataset"
        )
    at = {cutoff: result.at(cutoff) for cutoff in CUTOFFS}
    if as_json:
        rows = {str(k): {"recall": recall.value, "interval": [recall.low, recall.high]} for k, recall in at.items()}
        json_line({"questions": len(result.ranks), "skipped_yes_no": result.skipped_yes_no, "at": rows})
    else:
        _print_table(result, at)


def _print_table(result: Recall, at: Mapping[int, Interval]) -> None:
    from rich.table import Table

    table = Table("passages", "answer found", "95 % confidence")
    for cutoff, recall in at.items():
        table.add_row(str(cutoff), f"{recall.value:.1%}", f"{recall.low:.1%} to {recall.high:.1%}")
    screen = console()
    screen.print(table)
    screen.print(
        f"{len(result.ranks):,} questions; {result.skipped_yes_no:,} more with yes or no as answer are left out."
    )
