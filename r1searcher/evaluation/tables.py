"""Figures as tables in a terminal."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from r1searcher.evaluation.comparison import compare
from r1searcher.evaluation.intervals import Interval
from r1searcher.evaluation.judge import Judge
from r1searcher.evaluation.predictions import read_predictions
from r1searcher.evaluation.scoring import Report, Scored, report, score_file, score_prediction

NAMES = {
    "em": "EM",
    "f1": "F1",
    "cover_em": "cover EM, loose (ACC_R)",
    "cover_em_contiguous": "cover EM, contiguous",
    "judge": "LLM judge (ACC_L)",
    "format": "format right",
    "retrieval": "searched at least once",
    "searches": "searches a question",
    "query_words": "words a query",
    "answer_in_documents": "gold in the documents",
}


def name_of(metric: str) -> str:
    return NAMES.get(metric, metric)


def report_table(reports: Mapping[str, Report]) -> Table:
    """A row a metric, a column a dataset: mean and 95 % interval."""
    table = Table(box=None, padding=(0, 2))
    table.add_column("", no_wrap=True)
    for name, figures in reports.items():
        table.add_column(escape(f"{name}\nn = {figures.n}"), justify="right")
    for metric in metrics_of(reports):
        cells = [_cell(figures.metrics.get(metric)) for figures in reports.values()]
        table.add_row(name_of(metric), *cells)
    return table


def counts(figures: Report) -> list[str]:
    """What was counted rather than averaged, a sentence each."""
    lines = []
    if figures.stops:
        lines.append("stopped: " + ", ".join(f"{name} {count}" for name, count in figures.stops.items()))
    if figures.broken_rules:
        lines.append("format broken: " + ", ".join(f"{name} {count}" for name, count in figures.broken_rules.items()))
    if figures.judge_failed:
        lines.append(f"the judge failed on {figures.judge_failed} predictions; they count in no direction")
    if seconds := figures.seconds:
        lines.append(
            f"an episode took {seconds['p50']:.1f} s (median), {seconds['p95']:.1f} s (95 %), with others in flight"
        )
    return [*lines, *figures.notes]


def as_markdown(reports: Mapping[str, Report], manifest: Mapping[str, Any]) -> str:
    """The figures and what they were made with, as Markdown."""
    names = list(reports)
    lines = [
        f"# {manifest['model']}",
        "",
        "Means with bootstrap 95 % intervals over questions.",
        "",
        "| | " + " | ".join(f"{name} (n = {reports[name].n})" for name in names) + " |",
        "|---|" + "---|" * len(names),
    ]
    for metric in metrics_of(reports):
        cells = [_cell(reports[name].metrics.get(metric)) for name in names]
        lines.append(f"| {name_of(metric)} | " + " | ".join(cells) + " |")
    lines.append("")
    for name in names:
        lines += [f"- {name}: {line}" for line in counts(reports[name])]
    lines += ["", "## Made with", "", "```json", json.dumps(manifest, indent=2, ensure_ascii=False), "```", ""]
    return "\n".join(lines)


def metrics_of(reports: Mapping[str, Report]) -> list[str]:
    """Metrics that any of the reports has, in the order of `NAMES`, others behind."""
    present = {metric for figures in reports.values() for metric in figures.metrics}
    return [metric for metric in NAMES if metric in present] + sorted(present - set(NAMES))


def _cell(interval: Interval | None) -> str:
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]" if interval else ""


def print_scores(files: Sequence[Path], as_json: bool, judge: str | None = None, judge_model: str = "") -> None:
    """Score predictions files; one JSON object a file, or a table. Verdicts of a `judge` are kept beside the file."""
    reports = {file.name: report(_scored(file, judge, judge_model)) for file in files}
    if as_json:
        for figures in reports.values():
            typer.echo(json.dumps(figures.as_json()))
        return
    print_reports(reports)


def _scored(file: Path, judge: str | None, judge_model: str) -> list[Scored]:
    if judge is None:
        return score_file(file, os.cpu_count() or 1)
    ask = Judge(judge, judge_model, file.with_suffix(".judge.jsonl"))
    return [score_prediction(prediction) for prediction in ask(list(read_predictions(file)))]


def print_reports(reports: Mapping[str, Report]) -> None:
    """The table and what was counted, on standard output."""
    console = Console()
    console.print(report_table(reports))
    for name, figures in reports.items():
        for line in counts(figures):
            console.print(f"{name}: {line}", highlight=False, markup=False)


def print_comparison(a: Path, b: Path, as_json: bool) -> None:
    """Compare two predictions files."""
    processes = os.cpu_count() or 1
    comparison = compare(score_file(a, processes), score_file(b, processes))
    if as_json:
        typer.echo(json.dumps(comparison.as_json()))
        return
    table = Table(box=None, padding=(0, 1))
    for heading in ("", "A", "B", "B - A [95 %]", "p", "better", "worse", "noise?"):
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
            "no" if d.more_than_noise else "maybe",
        )
    console = Console()
    console.print(f"{comparison.n} questions in both; A is {a}, B is {b}", highlight=False, markup=False)
    for name, missing in ((a.name, comparison.only_a), (b.name, comparison.only_b)):
        if missing:
            console.print(f"{missing} questions are only in {name} and are left out", highlight=False, markup=False)
    console.print(table)
