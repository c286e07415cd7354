"""Figures as tables in a terminal."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from r1searcher.common.terminal import console, json_line
from r1searcher.evaluation.comparison import compare
from r1searcher.evaluation.intervals import Interval
from r1searcher.evaluation.judge import Judge
from r1searcher.evaluation.official import ACCURACY, EM, F1, SCORERS
from r1searcher.evaluation.predictions import read_predictions
from r1searcher.evaluation.scoring import Report, Scored, by_dataset, report, score_file, score_prediction

NAMES = {
    "em": "EM, R1-Searcher",
    EM: "EM, official",
    "f1": "F1, R1-Searcher",
    F1: "F1, official",
    ACCURACY: "accuracy, official",
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
        table.add_column(f"{name}\nn = {figures.n}", justify="right", overflow="fold")
    for metric in metrics_of(reports):
        cells = [_cell(figures.metrics.get(metric)) for figures in reports.values()]
        table.add_row(name_of(metric), *cells)
    return table


def counts(figures: Report) -> list[str]:
    """What was counted rather than averaged, a sentence each."""
    lines = [f"official metrics: {scorer}" for scorer in figures.official]
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
    return [*lines, *figures.warnings]


def as_markdown(reports: Mapping[str, Report], manifest: Mapping[str, Any]) -> str:
    """The figures and what they were made with, as Markdown."""
    names = list(reports)
    lines = [
        f"# {manifest['model']}",
        "",
        "Means with bootstrap 95 % intervals over questions.",
        "",
        "| | " + " | ".join(f"{_cell_text(name)} (n = {reports[name].n})" for name in names) + " |",
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


def _cell_text(name: str) -> str:
    """A name in a Markdown table: on one line, without a bar of its own."""
    return " ".join(name.split()).replace("|", "\\|")


def metrics_of(reports: Mapping[str, Report]) -> list[str]:
    """Metrics that any of the reports has, in the order of `NAMES`, others behind."""
    present = {metric for figures in reports.values() for metric in figures.metrics}
    return [metric for metric in NAMES if metric in present] + sorted(present - set(NAMES))


def _cell(interval: Interval | None) -> str:
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]" if interval else ""


def print_scores(
    files: Sequence[Path], as_json: bool, judge: str | None = None, judge_model: str = "", dataset: str | None = None
) -> None:
    """Score predictions files; one JSON object per file and dataset, or a table. Verdicts of a `judge` are kept beside
    the file. `dataset` names the dataset of all rows; without it they, or else the file's name, say it."""
    scored = [(file, _scored(file, judge, judge_model, dataset)) for file in files]
    parts = [(file, name, report(rows)) for file, all_rows in scored for name, rows in by_dataset(all_rows).items()]
    if as_json:
        for file, name, figures in parts:
            json_line({"file": str(file), "dataset": name or None, **figures.as_json()})
        return
    reports = _labeled(parts)
    print_reports(reports)
    for label, figures in reports.items():
        if not figures.official:
            known = ", ".join(SCORERS)
            console().print(f"{label}: no official metrics: it names none of {known}; see --dataset", soft_wrap=True)


def _labeled(parts: Sequence[tuple[Path, str, Report]]) -> dict[str, Report]:
    """Reports by the name of their file, or its path where files have the same name, with the dataset if a file has
    several."""
    paths = list(dict.fromkeys(file for file, _, _ in parts))
    reports: dict[str, Report] = {}
    for file, dataset, figures in parts:
        short = [path.name for path in paths].count(file.name) == 1
        several = len({name for path, name, _ in parts if path == file}) > 1
        label = (file.name if short else str(file)) + (f": {dataset or 'no dataset'}" if several else "")
        same, number = label, 1
        while label in reports:
            number += 1
            label = f"{same} ({number})"
        reports[label] = figures
    return reports


def _scored(file: Path, judge: str | None, judge_model: str, dataset: str | None) -> list[Scored]:
    if judge is None:
        scored = score_file(file, os.cpu_count() or 1, dataset or "")
    else:
        ask = Judge(judge, judge_model, file.with_suffix(".judge.jsonl"))
        scored = [score_prediction(prediction, dataset or "") for prediction in ask(list(read_predictions(file)))]
    return scored


def print_reports(reports: Mapping[str, Report]) -> None:
    """The table and what was counted, on standard output."""
    out = console()
    _print_whole(out, report_table(reports))
    for name, figures in reports.items():
        for line in counts(figures):
            out.print(f"{name}: {line}", soft_wrap=True)


def print_comparison(a: Path, b: Path, as_json: bool, dataset: str | None = None) -> None:
    """Compare two predictions files. `dataset` names the dataset of all rows."""
    comparison = compare(_scored(a, None, "", dataset), _scored(b, None, "", dataset))
    if as_json:
        json_line(comparison.as_json())
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
    out = console()
    out.print(f"{comparison.n} questions in both; A is {a}, B is {b}", soft_wrap=True)
    for file, missing in ((a, comparison.only_a), (b, comparison.only_b)):
        if missing:
            out.print(f"{missing} questions are only in {file} and are left out", soft_wrap=True)
    for scorer in comparison.official:
        out.print(f"official metrics: {scorer}", soft_wrap=True)
    _print_whole(out, table)


def _print_whole(out: Console, table: Table) -> None:
    """A table with nothing cut, however narrow the terminal is."""
    out.width = max(out.width, Measurement.get(out, out.options.update(max_width=10_000), table).maximum)
    out.print(table)
