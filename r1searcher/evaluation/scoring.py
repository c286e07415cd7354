"""Figures of a set of predictions: what each earned, and means with intervals."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

from r1searcher.errors import InputError
from r1searcher.evaluation.intervals import Interval, interval
from r1searcher.evaluation.predictions import Prediction, parse, read_predictions
from r1searcher.rewards.metrics import score
from r1searcher.rewards.recipes import measure

ANSWER_METRICS = ("em", "f1", "cover_em", "cover_em_contiguous")
RATES = ("format", "retrieval", "searches", "query_words", "answer_in_documents")
LARGE = 20_000_000
"""Bytes from which on a file is scored by several processes."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One prediction in figures. `measures` are those of `rewards.measure`, or the answer metrics alone."""

    key: str
    question: str
    measures: Mapping[str, float]
    judge: bool | None = None
    judge_failed: bool = False


def score_prediction(prediction: Prediction) -> Scored:
    """The answer decides the answer metrics, the trajectory everything else."""
    measures = measure(prediction.trajectory) if prediction.trajectory is not None else {}
    if not measures.get("searches"):
        measures.pop("query_words", None)  # there is no length of no query
    answered = score(prediction.answer, prediction.golds)._asdict()
    return Scored(
        prediction.key, prediction.question, {**measures, **answered}, prediction.judge, prediction.judge_failed
    )


def score_file(file: Path, processes: int = 1) -> list[Scored]:
    """Scores of a predictions file in its order; a large one by several processes."""
    if processes == 1 or not file.exists() or file.stat().st_size < LARGE:
        return [score_prediction(prediction) for prediction in read_predictions(file)]
    with file.open(encoding="utf-8-sig", errors="surrogatepass") as lines, ProcessPoolExecutor(processes) as pool:
        return [scored for chunk in pool.map(_score_lines, _chunks(str(file), lines)) for scored in chunk]


def _chunks(name: str, lines: Iterable[str], size: int = 2_000) -> Iterator[tuple[str, int, list[str]]]:
    source, start = iter(lines), 1
    while chunk := list(islice(source, size)):
        yield name, start, chunk
        start += len(chunk)


def _score_lines(job: tuple[str, int, list[str]]) -> list[Scored]:
    name, start, lines = job
    return [
        score_prediction(parse(line, f"{name}:{number}", str(number)))
        for number, line in enumerate(lines, start)
        if line.strip()
    ]


@dataclass(frozen=True)
class Report:
    """Figures of one dataset. `n` counts questions, `predictions` their samples."""

    n: int
    predictions: int
    metrics: Mapping[str, Interval]
    stops: Mapping[str, int]
    broken_rules: Mapping[str, int]
    judge_failed: int
    notes: Sequence[str] = field(default_factory=list)
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Median and 95th percentile of an episode's time, where it was measured."""

    def as_json(self) -> dict[str, Any]:
        """`n`, each metric as {"value", "low", "high"}, and what was counted."""
        return {
            "n": self.n,
            "predictions": self.predictions,
            **{name: asdict(value) for name, value in self.metrics.items()},
            "stops": dict(self.stops),
            "broken_rules": dict(self.broken_rules),
            "judge_failed": self.judge_failed,
            "notes": list(self.notes),
            **({"seconds": dict(self.seconds)} if self.seconds else {}),
        }


def by_question(scored: Iterable[Scored]) -> dict[str, list[Scored]]:
    """Samples of the same question together, in the order of their first."""
    groups: dict[str, list[Scored]] = {}
    for one in scored:
        groups.setdefault(one.key, []).append(one)
    return groups


def report(scored: Sequence[Scored]) -> Report:
    """Means over questions of the mean over a question's samples (mean@k), with bootstrap intervals over questions.

    With several samples a question, `pass@k` and `mean@k` say how many questions have one right answer (EM), and the
    mean of EM. Raises `InputError` for no predictions at all.
    """
    if not scored:
        raise InputError("there is no prediction to score")
    groups = by_question(scored)
    metrics = {}
    for name in (*ANSWER_METRICS, *RATES):
        means = [fmean(values) for group in groups.values() if (values := _present(group, name))]
        if means:
            metrics[name] = interval(means)
    judged = [fmean(v) for group in groups.values() if (v := [float(s.judge) for s in group if s.judge is not None])]
    if judged:
        metrics["judge"] = interval(judged)
    k = min(len(group) for group in groups.values())
    if k > 1:
        metrics[f"pass@{k}"] = interval([max(s.measures["em"] for s in group[:k]) for group in groups.values()])
        metrics[f"mean@{k}"] = interval([fmean(s.measures["em"] for s in group[:k]) for group in groups.values()])
    counted = Counter(key for one in scored for key in one.measures if "/" in key)
    return Report(
        len(groups),
        len(scored),
        metrics,
        _named(counted, "stop/"),
        _named(counted, "format/"),
        sum(one.judge_failed for one in scored),
        _notes(groups, k),
    )


def _present(group: Sequence[Scored], name: str) -> list[float]:
    return [one.measures[name] for one in group if name in one.measures]


def _named(counted: Counter[str], prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): count for name, count in counted.most_common() if name.startswith(prefix)}


def _notes(groups: Mapping[str, Sequence[Scored]], k: int) -> list[str]:
    notes = []
    repeated = sum(n > 1 for n in Counter(group[0].question for group in groups.values()).values())
    if repeated:
        notes.append(f"{repeated} questions stand in the file more than once, under different ids")
    uneven = sum(len(group) != k for group in groups.values())
    if uneven:
        notes.append(f"{uneven} questions have more samples than the {k} of the others")
    return notes
