"""The output of `r1s evaluate`, `score` and `compare`."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from r1searcher.common import terminal
from r1searcher.errors import InputError
from r1searcher.evaluation.comparison import compare
from r1searcher.evaluation.evaluate import EvaluationRequest, evaluate
from r1searcher.evaluation.judge import Judge, JudgeRequest
from r1searcher.evaluation.predictions import read_predictions
from r1searcher.evaluation.scoring import PLAIN, Scoring, score_file
from r1searcher.questions.datasets import DATASETS
from r1searcher.report.scoring import MetricSummary, Scored, by_dataset, summarize
from r1searcher.report.tables import name_of, print_summaries, print_whole
from r1searcher.rewards.measures import REWARD


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """The arguments of `r1s score`. `scoring` says how rows are scored."""

    files: Sequence[Path]
    as_json: bool = False
    judge: JudgeRequest | None = None
    scoring: Scoring = PLAIN


def run_evaluate(request: EvaluationRequest) -> None:
    """Evaluate with progress on standard error, the table on standard output."""
    errors = terminal.console(stderr=True)
    print_summaries(evaluate(request, errors))
    errors.print(f"report: {request.folder.path / 'report.html'}", soft_wrap=True)


def print_scores(request: ScoreRequest) -> None:
    """Score predictions files; one JSON object per file and dataset, or a table. A judge's verdicts are kept in a
    file next to it."""
    scored = [(file, _scored(file, request.scoring, request.judge)) for file in request.files]
    parts = [(file, name, summarize(rows)) for file, all_rows in scored for name, rows in by_dataset(all_rows).items()]
    if request.as_json:
        for file, name, summary in parts:
            terminal.json_line({"file": str(file), "dataset": name or None, **summary.as_json()})
        return
    summaries = _labeled(parts)
    print_summaries(summaries)
    for label, summary in summaries.items():
        if not summary.official:
            known = ", ".join(DATASETS)
            terminal.console().print(
                f"{label}: no official metrics: its dataset is none of {known}; see --dataset", soft_wrap=True
            )


def _labeled(parts: Sequence[tuple[Path, str, MetricSummary]]) -> dict[str, MetricSummary]:
    """Summaries by the name of their file, or by its path if several files have that name; with the dataset if a file
    has several."""
    paths = list(dict.fromkeys(file for file, _, _ in parts))
    summaries: dict[str, MetricSummary] = {}
    for file, dataset, summary in parts:
        short = [path.name for path in paths].count(file.name) == 1
        several = len({name for path, name, _ in parts if path == file}) > 1
        label = (file.name if short else str(file)) + (f": {dataset or 'no dataset'}" if several else "")
        same, number = label, 1
        while label in summaries:
            number += 1
            label = f"{same} ({number})"
        summaries[label] = summary
    return summaries


def _scored(file: Path, scoring: Scoring, judge: JudgeRequest | None = None) -> list[Scored]:
    """Raises `InputError` if a reward is requested and no row has a trajectory to compute it from."""
    if judge is None:
        scored = score_file(file, os.cpu_count() or 1, scoring)
    else:
        ask, score = Judge(judge, file.with_suffix(".judge.jsonl")), scoring.function()
        scored = [score(prediction) for prediction in ask(list(read_predictions(file)))]
    if scoring.reward and not any(REWARD.name in one.measures for one in scored):
        raise InputError(f"{file} has answers without trajectories: --reward needs rows of r1s evaluate or of a run")
    return scored


def print_comparison(a: Path, b: Path, as_json: bool, dataset: str | None = None) -> None:
    """Compare two predictions files. `dataset` names the dataset of all rows."""
    scoring = Scoring(dataset=dataset or "")
    comparison = compare(_scored(a, scoring), _scored(b, scoring))
    if as_json:
        terminal.json_line(comparison.as_json())
        return
    table = Table(box=None, padding=(0, 1))
    for heading in ("", "A", "B", "B - A [95 %]", "p", "better", "worse", "significant?"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for metric, d in comparison.differences.items():
        table.add_row(
            name_of(metric),
            f"{comparison.a[metric]:.3f}",
            f"{comparison.b[metric]:.3f}",
            f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]",
            f"{d.p:.3f}",
            str(d.better),
            str(d.worse),
            "yes" if d.significant else "no",
        )
    out = terminal.console()
    out.print(f"{comparison.n} questions in both; A is {a}, B is {b}", soft_wrap=True)
    for file, missing in ((a, comparison.only_a), (b, comparison.only_b)):
        if missing:
            out.print(f"{missing} questions are only in {file} and are skipped", soft_wrap=True)
    for scorer in comparison.official:
        out.print(f"official metrics: {scorer}", soft_wrap=True)
    print_whole(out, table)
