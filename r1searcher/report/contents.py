"""The contents of a report, computed once from records: rows of trajectories, rows of metrics and a manifest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from r1searcher.report.predictions import Prediction, of_episode
from r1searcher.report.scoring import MetricSummary, Scored, score_prediction, summarize
from r1searcher.rewards.format import MAX_ANSWER_WORDS

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Records:
    """The input of a report.

    trajectories: rows as `runs.records.to_row` makes them; the key `grouped_by` names the group of each, a dataset of
        an evaluation or a step of a run.
    metrics: the rows of a run's `metrics.jsonl`, one per step.
    max_answer_words, format_rules: those of the run's reward, which decide whether a format is right.
    """

    title: str
    manifest: Row
    trajectories: Sequence[Row]
    grouped_by: Literal["dataset", "step"]
    metrics: Sequence[Mapping[str, float]] = ()
    max_answer_words: int = MAX_ANSWER_WORDS
    format_rules: tuple[str, ...] = ()

    def group_of(self, row: Row) -> str:
        """The name of a row's group: the dataset's, or "step 12"."""
        value = row[self.grouped_by]
        return str(value) if self.grouped_by == "dataset" else f"{self.grouped_by} {value}"


@dataclass(frozen=True, kw_only=True)
class Report:
    """Records with the values computed from them. `predictions` and `scored` are in the order of the trajectories;
    `summaries` has the metrics of each group, in the order of their first row."""

    records: Records
    predictions: Sequence[Prediction]
    scored: Sequence[Scored]
    summaries: Mapping[str, MetricSummary]

    def as_json(self) -> dict[str, Any]:
        """`manifest`, the metrics of each group under `datasets` or `steps`, and the rows of `metrics` of a run."""
        records = self.records
        groups = {name: summary.as_json() for name, summary in self.summaries.items()}
        return {
            "manifest": records.manifest,
            f"{records.grouped_by}s": groups,
            **({"metrics": list(records.metrics)} if records.metrics else {}),
        }


def report_of(records: Records) -> Report:
    """Score the trajectories and summarize each group. Raises `ValueError` for a row without a trajectory."""
    predictions = [of_episode(row, str(number)) for number, row in enumerate(records.trajectories)]
    scored = [
        score_prediction(one, max_answer_words=records.max_answer_words, format_rules=records.format_rules)
        for one in predictions
    ]
    members: dict[str, list[int]] = {}
    for number, row in enumerate(records.trajectories):
        members.setdefault(records.group_of(row), []).append(number)
    summaries = {}
    for name, numbers in members.items():
        taken = [records.trajectories[n].get("seconds") for n in numbers]
        seconds = [float(value) for value in taken if value is not None]
        summaries[name] = replace(summarize([scored[n] for n in numbers]), seconds=_percentiles(seconds))
    return Report(records=records, predictions=predictions, scored=scored, summaries=summaries)


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile of an episode's seconds, while other episodes ran; empty if none were measured."""
    if not seconds:
        return {}
    ordered = sorted(seconds)
    return {"p50": ordered[len(ordered) // 2], "p95": ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]}
