"""Compares two sets of predictions, question by question."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from r1searcher.errors import InputError
from r1searcher.report.intervals import Difference, paired_difference
from r1searcher.report.scoring import Scored, by_question, official_scorers, values_of
from r1searcher.rewards.measures import Measure, View, shown_in
from r1searcher.rewards.official import OFFICIAL_METRICS


@dataclass(frozen=True)
class Comparison:
    """Paired differences B - A over the `n` questions both have; `only_a` and `only_b` count the others."""

    n: int
    only_a: int
    only_b: int
    a: Mapping[str, float]
    b: Mapping[str, float]
    differences: Mapping[str, Difference]
    official: Sequence[str] = ()
    """The scorers of the official metrics that were compared."""

    def as_json(self) -> dict[str, Any]:
        return {
            "n": self.n,
            "only_a": self.only_a,
            "only_b": self.only_b,
            "official": list(self.official),
            **{
                name: {
                    "a": self.a[name],
                    "b": self.b[name],
                    **asdict(difference),
                    "significant": difference.significant,
                }
                for name, difference in self.differences.items()
            },
        }


def compare(a: Sequence[Scored], b: Sequence[Scored]) -> Comparison:
    """Pairs by the question's text; samples of a question are averaged first.

    A metric is compared if both have it for every common question. Raises `InputError` if there is no common question.
    """
    groups_a, groups_b = _by_text(a), _by_text(b)
    common = [question for question in groups_a if question in groups_b]
    if not common:
        raise InputError("the two files have no question in common: compare predictions on the same dataset")
    means_a, means_b, differences = {}, {}, {}
    for m in shown_in(View.COMPARISON):
        values_a = [_mean(groups_a[question], m) for question in common]
        values_b = [_mean(groups_b[question], m) for question in common]
        pairs = [(x, y) for x, y in zip(values_a, values_b, strict=True) if x is not None and y is not None]
        if len(pairs) == len(common):
            xs, ys = [x for x, _ in pairs], [y for _, y in pairs]
            means_a[m.name], means_b[m.name] = fmean(xs), fmean(ys)
            differences[m.name] = paired_difference(xs, ys)
    compared = [one for question in common for one in (*groups_a[question], *groups_b[question])]
    return Comparison(
        n=len(common),
        only_a=len(groups_a) - len(common),
        only_b=len(groups_b) - len(common),
        a=means_a,
        b=means_b,
        differences=differences,
        official=official_scorers(compared) if set(OFFICIAL_METRICS) & set(differences) else [],
    )


def _by_text(scored: Sequence[Scored]) -> dict[str, list[Scored]]:
    """Groups by question text; further questions with the same text are distinguished by number."""
    groups: dict[str, list[Scored]] = {}
    for group in by_question(scored).values():
        text, number = " ".join(group[0].question.split()), 1
        while (name := text if number == 1 else f"{text} #{number}") in groups:
            number += 1
        groups[name] = group
    return groups


def _mean(group: Sequence[Scored], measure: Measure) -> float | None:
    values = values_of(group, measure.name)
    return measure.aggregate(values) if values else None
