"""The contents of a report, computed once from records: rows of trajectories, rows of metrics and a manifest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from r1searcher.errors import InputError
from r1searcher.report.predictions import Prediction, of_episode
from r1searcher.report.scoring import MetricSummary, Scored, score_prediction, summarize
from r1searcher.rewards.format import MAX_ANSWER_WORDS

Row = Mapping[str, Any]

FOLDER = "report_folder"
"""The key of a row with the name of its folder, in a report of several."""


@dataclass(frozen=True, kw_only=True)
class Records:
    """The input of a report.

    trajectories: rows as `runs.records.to_row` makes them; the key `grouped_by` names the group of each, a dataset of
        an evaluation or a step of a run.
    metrics: the rows of a run's `metrics.jsonl`, one per step.
    max_answer_words, format_rules: those of the run's reward, which decide whether a format is right.
    notes: what happened in a run, one sentence each.
    runs: the metrics of each run by its name, where the report is of several.
    """

    title: str
    manifest: Row
    trajectories: Sequence[Row]
    grouped_by: Literal["dataset", "step"]
    metrics: Sequence[Mapping[str, float]] = ()
    max_answer_words: int = MAX_ANSWER_WORDS
    format_rules: tuple[str, ...] = ()
    notes: Sequence[str] = ()
    runs: Mapping[str, Sequence[Mapping[str, float]]] = field(default_factory=dict)

    def group_of(self, row: Row) -> str:
        """The name of a row's group: the dataset's, or "step 12"; after its folder, where there are several."""
        value = row[self.grouped_by]
        name = str(value) if self.grouped_by == "dataset" else f"{self.grouped_by} {value}"
        return f"{row[FOLDER]}: {name}" if FOLDER in row else name

    def samples_of(self, row: Row) -> str:
        """What is equal for the samples of one question in one step or dataset, in any folder."""
        return f"{row[self.grouped_by]}/{row.get('id', row['question'])}"

    @property
    def curves(self) -> Mapping[str, Sequence[Mapping[str, float]]]:
        """The metrics by the name of their run; "" if the report is of one run."""
        return self.runs or {"": self.metrics}


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
            **({"runs": {name: list(rows) for name, rows in records.runs.items()}} if records.runs else {}),
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


def side_by_side(reports: Mapping[str, Report]) -> Report:
    """One report of several, by the names of their folders. Raises `InputError` for runs with evaluations."""
    all_records = [report.records for report in reports.values()]
    if len({records.grouped_by for records in all_records}) > 1:
        raise InputError("a run and an evaluation cannot be side by side: give folders of one kind")
    runs = {name: report.records.metrics for name, report in reports.items() if report.records.metrics}
    records = Records(
        title=" | ".join(reports),
        manifest={name: report.records.manifest for name, report in reports.items()},
        trajectories=[{**row, FOLDER: name} for name, report in reports.items() for row in report.records.trajectories],
        grouped_by=all_records[0].grouped_by,
        notes=[f"{name}: {note}" for name, report in reports.items() for note in report.records.notes],
        runs=runs,
    )
    return Report(
        records=records,
        predictions=[one for report in reports.values() for one in report.predictions],
        scored=[one for report in reports.values() for one in report.scored],
        summaries={f"{name}: {g}": s for name, report in reports.items() for g, s in report.summaries.items()},
    )


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile of an episode's seconds, while other episodes ran; empty if none were measured."""
    if not seconds:
        return {}
    ordered = sorted(seconds)
    return {"p50": ordered[len(ordered) // 2], "p95": ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]}
