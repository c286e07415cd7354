"""Recall of several retrievers as tables, as JSON and as the curves of a plot."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from r1searcher.common.terminal import console, visible
from r1searcher.evaluation.corpus_answers import CorpusAnswers
from r1searcher.evaluation.recall import CUTOFFS, DEPTH, MEASURES, RECALLS, Recall
from r1searcher.questions.named import Dataset
from r1searcher.questions.question import Question
from r1searcher.report.intervals import Interval, interval
from r1searcher.report.recall_plot import Curve
from r1searcher.retrieval.base import EngineSettings, Health
from r1searcher.retrieval.registry import described


@dataclass(frozen=True, slots=True)
class Measured:
    """One retriever and its searches."""

    engine: EngineSettings
    health: Health
    recall: Recall


@dataclass(frozen=True, slots=True)
class Results:
    """All retrievers, by name, on the same questions, and what the corpus contains if it was read. The first retriever
    is the one that the others are compared with."""

    data: Dataset
    questions: Sequence[Question]
    retrievers: Mapping[str, Measured]
    corpus: CorpusAnswers | None
    concurrency: int

    @property
    def skipped_yes_no(self) -> int:
        return len(self.data.questions) - len(self.questions)

    @property
    def first(self) -> Measured:
        return next(iter(self.retrievers.values()))

    @property
    def others(self) -> dict[str, Measured]:
        return dict(list(self.retrievers.items())[1:])

    @property
    def unanswerable(self) -> Interval | None:
        """The share of questions whose gold answers are in no passage."""
        return interval([float(not there) for there in self.corpus.answerable]) if self.corpus else None

    def notes(self) -> Iterator[str]:
        """What makes a figure doubtful, one sentence each."""
        for name, one in self.retrievers.items():
            shown, searches = visible(name), one.recall.searches
            if one.recall.cached:
                yield (
                    f"{shown}: {one.recall.cached:,} of {len(searches):,} searches are from a recording, and so are "
                    "their time and cost."
                )
            if self.corpus is None:
                continue
            pairs = zip(searches, self.corpus.answerable, strict=True)
            elsewhere = sum(search.rank is not None and not there for search, there in pairs)
            if elsewhere:
                yield (
                    f"{shown} found answers of {elsewhere:,} questions that are in no passage of "
                    f"{visible(self.corpus.source)}: it searches other passages."
                )
            elif one.health.passages not in (None, self.corpus.passages):
                yield (
                    f"{shown} searches {one.health.passages:,} passages, {visible(self.corpus.source)} has "
                    f"{self.corpus.passages:,}."
                )
        if self.corpus and self.corpus.bad_rows:
            yield f"{visible(self.corpus.source)}: rows that are not passages: {self.corpus.bad_rows:,}."

    def as_json(self) -> dict[str, Any]:
        """All figures; `at` is that of the first retriever."""
        retrievers = {name: self._retriever(one) for name, one in self.retrievers.items()}
        for name, one in self.others.items():
            differences = {m: one.recall.difference(self.first.recall, m) for m in MEASURES}
            retrievers[name]["minus_first"] = {
                m: {**asdict(difference), "significant": difference.significant}
                for m, difference in differences.items()
            }
        return {
            "dataset": self.data.name,
            "dataset_sha256": self.data.sha256,
            "questions": len(self.questions),
            "skipped_yes_no": self.skipped_yes_no,
            "concurrency": self.concurrency,
            "at": next(iter(retrievers.values()))["at"],
            "retrievers": retrievers,
            **({"corpus": self._corpus(self.corpus)} if self.corpus else {}),
        }

    def _retriever(self, one: Measured) -> dict[str, Any]:
        recall, answerable = one.recall, self.corpus.answerable if self.corpus else []
        return {
            "settings": described(one.engine),
            "health": asdict(one.health),
            **_means(recall, None),
            "ms": {"median": recall.milliseconds(0.5), "p95": recall.milliseconds(0.95)},
            "usd_per_1000": recall.usd_per_1000,
            "cached": recall.cached,
            **({"answerable": _means(recall, answerable)} if any(answerable) else {}),
        }

    def _corpus(self, corpus: CorpusAnswers) -> dict[str, Any]:
        share = self.unanswerable
        return {
            "source": corpus.source,
            "passages": corpus.passages,
            "bad_rows": corpus.bad_rows,
            "answerable": sum(corpus.answerable),
            "unanswerable": asdict(share) if share else None,
        }

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row per question: what every figure is computed from."""
        for place, question in enumerate(self.questions):
            searches = {name: one.recall.searches[place] for name, one in self.retrievers.items()}
            yield {
                "id": question.id,
                "question": question.text,
                "gold_answers": list(question.gold_answers),
                **({"first_passage": self.corpus.first[place]} if self.corpus else {}),
                "searches": {
                    name: {
                        "rank": search.rank,
                        "ms": 1000 * search.seconds,
                        "cost_usd": search.cost_usd,
                        "cached": search.cached,
                    }
                    for name, search in searches.items()
                },
            }

    def curves(self) -> list[Curve]:
        return [
            Curve(
                name,
                {k: one.recall.mean(m) for k, m in zip(CUTOFFS, RECALLS, strict=True)},
                one.recall.milliseconds(0.5),
                one.recall.milliseconds(0.95),
            )
            for name, one in self.retrievers.items()
        ]


def _means(recall: Recall, chosen: Sequence[bool] | None) -> dict[str, Any]:
    at = {str(k): recall.mean(m, chosen) for k, m in zip(CUTOFFS, RECALLS, strict=True)}
    return {
        "at": {k: {"recall": mean.value, "interval": [mean.low, mean.high]} for k, mean in at.items()},
        "mrr": asdict(recall.mean(f"MRR@{DEPTH}", chosen)),
    }


def print_tables(results: Results) -> None:
    """Recall, times and costs; below it the differences to the first retriever, and recall among the answerable
    questions."""
    from rich.table import Table

    retrievers = results.retrievers
    costs = any(one.recall.usd_per_1000 for one in retrievers.values())
    screen = console()

    def table(*more: str) -> Table:
        made = Table("retriever", *MEASURES, *more, box=None, padding=(0, 1, 0, 0))
        made.columns[0].overflow = "fold"
        for column in made.columns[1:]:
            column.justify, column.no_wrap = "right", True
        return made

    found = table("ms", *(["$ / 1,000"] if costs else []))
    for name, one in retrievers.items():
        recall = one.recall
        ms = f"{_ms(recall.milliseconds(0.5))}\np95 {_ms(recall.milliseconds(0.95))}"
        cost = [f"{recall.usd_per_1000:,.2f}"] if costs else []
        found.add_row(name, *(_cell(recall.mean(m)) for m in MEASURES), ms, *cost)
    screen.print("Questions with a gold answer in the first passages:", found, sep="\n")
    screen.print(
        f"{len(results.questions):,} questions; {results.skipped_yes_no:,} more with yes or no as answer are left out. "
        f"Below each value its 95 % interval; milliseconds of a search, {_at_once(results.concurrency)}.",
    )
    if results.others:
        compared = table()
        for name, one in results.others.items():
            differences = (one.recall.difference(results.first.recall, m) for m in MEASURES)
            compared.add_row(name, *(_cell(difference, "+") for difference in differences))
        screen.print("", "Difference to the first retriever:", compared, sep="\n")
    if results.corpus and (share := results.unanswerable):
        corpus, answerable = results.corpus, results.corpus.answerable
        screen.print(
            "",
            f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%}) of the questions have no gold answer in any of "
            f"the {corpus.passages:,} passages of {corpus.source}. Of the other {sum(answerable):,}:",
            sep="\n",
        )
        if any(answerable):
            among = table()
            for name, one in retrievers.items():
                among.add_row(name, *(_cell(one.recall.mean(m, answerable)) for m in MEASURES))
            screen.print(among)


def _cell(mean: Any, sign: str = "") -> str:
    """A value in percent, and its interval in the line below."""
    return f"{100 * mean.value:{sign}.1f}%\n{100 * mean.low:{sign}.1f}…{100 * mean.high:{sign}.1f}"


def _ms(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _at_once(concurrency: int) -> str:
    return "one at a time" if concurrency == 1 else f"{concurrency} at the same time"
