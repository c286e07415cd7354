"""Figures as tables in a terminal."""

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from r1searcher.common.terminal import console
from r1searcher.report.intervals import Interval
from r1searcher.report.scoring import MetricSummary
from r1searcher.rewards.measures import MEASURES, View, shown_in


def name_of(metric: str) -> str:
    """The label of a measure; the name itself of what is derived from one (`pass@4`)."""
    return MEASURES[metric].label if metric in MEASURES else metric


def report_table(reports: Mapping[str, MetricSummary]) -> Table:
    """A row per metric, a column per dataset: mean and 95 % interval."""
    table = Table(box=None, padding=(0, 2))
    table.add_column("", no_wrap=True)
    for name, figures in reports.items():
        table.add_column(f"{name}\nn = {figures.n}", justify="right", overflow="fold")
    for metric in metrics_of(reports):
        cells = [_cell(figures.metrics.get(metric)) for figures in reports.values()]
        table.add_row(name_of(metric), *cells)
    return table


def counts(figures: MetricSummary) -> list[str]:
    """What was counted rather than averaged, one sentence each."""
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


def as_markdown(reports: Mapping[str, MetricSummary], manifest: Mapping[str, Any]) -> str:
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


def metrics_of(reports: Mapping[str, MetricSummary]) -> list[str]:
    """Metrics that any of the reports has, in the order of the table of measures, others after them."""
    present = {metric for figures in reports.values() for metric in figures.metrics}
    known = [m.name for m in shown_in(View.TABLE)]
    return [name for name in known if name in present] + sorted(present - set(known))


def _cell(interval: Interval | None) -> str:
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]" if interval else ""


def print_summaries(reports: Mapping[str, MetricSummary]) -> None:
    """The table and what was counted, on standard output."""
    out = console()
    print_whole(out, report_table(reports))
    for name, figures in reports.items():
        for line in counts(figures):
            out.print(f"{name}: {line}", soft_wrap=True)


def print_whole(out: Console, table: Table) -> None:
    """A table with nothing cut, however narrow the terminal is."""
    out.width = max(out.width, Measurement.get(out, out.options.update(max_width=10_000), table).maximum)
    out.print(table)
