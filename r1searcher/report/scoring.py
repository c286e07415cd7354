"""Metrics of predictions: per prediction, and means with intervals."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from r1searcher.errors import InputError
from r1searcher.questions.scorers import official_scorer
from r1searcher.report.intervals import Interval, interval
from r1searcher.report.predictions import Prediction
from r1searcher.rewards.format import MAX_ANSWER_WORDS
from r1searcher.rewards.measures import EM, JUDGE, REWARD, View, measure, shown_in
from r1searcher.rewards.metrics import score


@dataclass(frozen=True, slots=True)
class Scored:
    """The metrics of one prediction.

    `measures` are those of `rewards.measure`, or the answer metrics alone, and the official metrics of `dataset`.
    """

    key: str
    question: str
    measures: Mapping[str, float]
    judge_failed: bool = False
    dataset: str = ""


def score_prediction(
    prediction: Prediction,
    dataset: str = "",
    *,
    max_answer_words: int = MAX_ANSWER_WORDS,
    format_rules: tuple[str, ...] = (),
) -> Scored:
    """The answer decides the answer metrics, the trajectory everything else.

    `dataset` is the source of the question, and overrides the row's own.
    """
    trajectory = prediction.trajectory
    measures = measure(trajectory, max_answer_words, format_rules) if trajectory is not None else {}
    answered = score(prediction.answer, prediction.gold_answers)._asdict()
    name = dataset or prediction.dataset
    scorer = official_scorer(name)
    official = scorer(prediction.answer, prediction.gold_answers) if scorer else {}
    judged = {JUDGE.name: float(prediction.judge)} if prediction.judge is not None else {}
    return Scored(
        prediction.key,
        prediction.question,
        {**measures, **answered, **official, **judged},
        prediction.judge_failed,
        name,
    )


def by_dataset(scored: Iterable[Scored]) -> dict[str, list[Scored]]:
    """Predictions grouped by dataset, in the order of their first; "" for those without one."""
    groups: dict[str, list[Scored]] = {}
    for one in scored:
        groups.setdefault(one.dataset, []).append(one)
    return groups


@dataclass(frozen=True)
class MetricSummary:
    """Metrics of one dataset, or of one step of a run. `n` counts questions, `predictions` their samples.

    `official` names the scorers of the official metrics; empty if the dataset has none.
    """

    n: int
    predictions: int
    metrics: Mapping[str, Interval]
    stops: Mapping[str, int]
    broken_rules: Mapping[str, int]
    judge_failed: int
    warnings: Sequence[str] = field(default_factory=list)
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Median and 95th percentile of an episode's time, if it was measured."""
    official: Sequence[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """`n`, each metric as {"value", "low", "high"}, and what was counted."""
        return {
            "n": self.n,
            "predictions": self.predictions,
            **{name: asdict(value) for name, value in self.metrics.items()},
            "stops": dict(self.stops),
            "broken_rules": dict(self.broken_rules),
            "judge_failed": self.judge_failed,
            "warnings": list(self.warnings),
            "official": list(self.official),
            **({"seconds": dict(self.seconds)} if self.seconds else {}),
        }


def by_question(scored: Iterable[Scored]) -> dict[str, list[Scored]]:
    """Samples grouped by question, in the order of their first."""
    groups: dict[str, list[Scored]] = {}
    for one in scored:
        groups.setdefault(one.key, []).append(one)
    return groups


def summarize(scored: Sequence[Scored]) -> MetricSummary:
    """Means over questions of the mean over a question's samples (mean@k), with bootstrap intervals over questions.

    With several samples per question, `pass@k` is the share of questions with a right answer (EM) among the first k,
    and `mean@k` the mean EM of these. Raises `InputError` for no predictions at all.
    """
    if not scored:
        raise InputError("there are no predictions to score")
    groups = by_question(scored)
    metrics = {}
    for m in shown_in(View.TABLE):
        means = [m.aggregate(values) for group in groups.values() if (values := values_of(group, m.name))]
        if means:
            metrics[m.name] = interval(means)
    for name in dict.fromkeys(key for one in scored for key in one.measures if key.partition("/")[0] == REWARD.name):
        metrics[name] = interval([fmean(values) for group in groups.values() if (values := values_of(group, name))])
    k = min(len(group) for group in groups.values())
    if k > 1:
        metrics[f"pass@{k}"] = interval([max(s.measures[EM.name] for s in group[:k]) for group in groups.values()])
        metrics[f"mean@{k}"] = interval([fmean(s.measures[EM.name] for s in group[:k]) for group in groups.values()])
    counted = Counter(key for one in scored for key in one.measures if "/" in key)
    return MetricSummary(
        len(groups),
        len(scored),
        metrics,
        _named(counted, "stop/"),
        _named(counted, "format/"),
        sum(one.judge_failed for one in scored),
        _warnings(groups, k),
        official=official_scorers(scored),
    )


def official_scorers(scored: Iterable[Scored]) -> list[str]:
    """The official scorers of the predictions' datasets, in the order of their first."""
    datasets = dict.fromkeys(one.dataset for one in scored)
    return list(dict.fromkeys(str(scorer) for name in datasets if (scorer := official_scorer(name))))


def values_of(group: Sequence[Scored], name: str) -> list[float]:
    """The values of the predictions that have the measure of that name."""
    return [one.measures[name] for one in group if name in one.measures]


def _named(counted: Counter[str], prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): count for name, count in counted.most_common() if name.startswith(prefix)}


def _warnings(groups: Mapping[str, Sequence[Scored]], k: int) -> list[str]:
    warnings = []
    repeated = sum(n > 1 for n in Counter(group[0].question for group in groups.values()).values())
    if repeated:
        warnings.append(f"{repeated} questions occur in the file more than once, under different ids")
    uneven = sum(len(group) != k for group in groups.values())
    if uneven:
        warnings.append(f"{uneven} questions have more samples than the {k} of the others")
    return warnings
