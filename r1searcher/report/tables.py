"""Metrics as tables: in a terminal, and as Markdown."""

import json
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from r1searcher.common.terminal import console
from r1searcher.report.contents import Report
from r1searcher.report.intervals import Interval
from r1searcher.report.scoring import MetricSummary
from r1searcher.rewards.measures import MEASURES, NEW_TOKENS, Measure, View, shown_in

SECONDS = "timing/step_total"
"""The engine's own measurement of a step's duration."""

PART = "reward/"
"""The prefix of reward part keys."""


def name_of(metric: str) -> str:
    """The label of a measure; for a name derived from one (`pass@4`), the name itself."""
    return MEASURES[metric].label if metric in MEASURES else metric


def summary_table(summaries: Mapping[str, MetricSummary]) -> Table:
    """One row per metric, one column per dataset: mean and 95 % interval."""
    table = Table(box=None, padding=(0, 2))
    table.add_column("", no_wrap=True)
    for name, summary in summaries.items():
        table.add_column(f"{name}\nn = {summary.n}", justify="right", overflow="fold")
    for metric in metrics_of(summaries):
        cells = [_cell(summary.metrics.get(metric)) for summary in summaries.values()]
        table.add_row(name_of(metric), *cells)
    return table


def counts(summary: MetricSummary) -> list[str]:
    """Counts, one sentence each."""
    lines = [f"official metrics: {scorer}" for scorer in summary.official]
    if summary.stops:
        lines.append("stopped: " + ", ".join(f"{name} {count}" for name, count in summary.stops.items()))
    if summary.broken_rules:
        lines.append("format broken: " + ", ".join(f"{name} {count}" for name, count in summary.broken_rules.items()))
    if failed := summary.judge_failed:
        lines.append(f"the judge failed on {failed} predictions, which count neither as right nor as wrong")
    if seconds := summary.seconds:
        lines.append(
            f"an episode took {seconds['p50']:.1f} s (median), {seconds['p95']:.1f} s (95 %), while other episodes ran"
        )
    return [*lines, *summary.warnings]


def as_markdown(report: Report) -> str:
    """The metrics and the manifest, as Markdown; for a run also the metrics of every step."""
    summaries = report.summaries
    names = list(summaries)
    lines = [
        f"# {report.records.title}",
        "",
        "Means with bootstrap 95 % intervals over questions.",
        "",
        "| | " + " | ".join(f"{_cell_text(name)} (n = {summaries[name].n})" for name in names) + " |",
        "|---|" + "---|" * len(names),
    ]
    for metric in metrics_of(summaries):
        cells = [_cell(summaries[name].metrics.get(metric)) for name in names]
        lines.append(f"| {name_of(metric)} | " + " | ".join(cells) + " |")
    lines += ["", *(f"- {' '.join(note.split())}" for note in report.records.notes)]
    for name in names:
        lines += [f"- {name}: {line}" for line in counts(summaries[name])]
    for name, metrics in report.records.curves.items():
        if metrics:
            headings, rows = step_cells(metrics)
            head, *body = [f"| {' | '.join(map(_cell_text, row))} |" for row in (headings, *rows)]
            title = f"## Steps of {' '.join(name.split())}" if name else "## Steps"
            lines += ["", title, "", head, "|" + "---:|" * len(headings), *body]
    manifest = json.dumps(report.records.manifest, indent=2, ensure_ascii=False)
    return "\n".join([*lines, "", "## Made with", "", "```json", manifest, "```", ""])


def logged_measures(rows: Sequence[Mapping[str, float]]) -> list[Measure]:
    """The measures of the live view that some row has."""
    return [m for m in shown_in(View.LIVE) if any(m.name in row for row in rows)]


def step_cells(rows: Sequence[Mapping[str, float]]) -> tuple[list[str], list[list[str]]]:
    """The table of a run's steps as text, headings and rows: measures that were logged, reward parts and speed."""
    parts = sorted({key for row in rows for key in row if key.startswith(PART)})
    columns = {m.name: m.heading for m in logged_measures(rows)} | {p: f"{p.removeprefix(PART)} part" for p in parts}
    body = [
        [
            str(row["step"]),
            *(f"{row[key]:.3f}" if key in row else "" for key in columns),
            f"{tokens_per_second(row):.0f}",
            f"{row.get(SECONDS, 0):.0f}",
        ]
        for row in rows
    ]
    return ["step", *columns.values(), "tokens/s", "s"], body


def steps_table(rows: Sequence[Mapping[str, float]]) -> Table:
    """The table of a run's steps for a terminal."""
    headings, body = step_cells(rows)
    table = Table(box=None, padding=(0, 1))
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in body:
        table.add_row(*row)
    return table


def tokens_per_second(row: Mapping[str, float]) -> float:
    """Sampled tokens over the time of the rollouts, including searches; 0 if the engine did not measure it."""
    seconds = row.get("timing/generation", 0.0)
    return row.get(NEW_TOKENS.name, 0.0) * row.get("rollout/num_samples", 0.0) / seconds if seconds else 0.0


def _cell_text(name: str) -> str:
    """A name in a Markdown table: on one line, with bars escaped."""
    return " ".join(name.split()).replace("|", "\\|")


def metrics_of(summaries: Mapping[str, MetricSummary]) -> list[str]:
    """Metrics that any of the summaries has, in the order of the table of measures, others after them."""
    present = {metric for summary in summaries.values() for metric in summary.metrics}
    known = [m.name for m in shown_in(View.TABLE)]
    return [name for name in known if name in present] + sorted(present - set(known))


def _cell(interval: Interval | None) -> str:
    return str(interval) if interval else ""


def print_summaries(summaries: Mapping[str, MetricSummary]) -> None:
    """The table and the counts, on standard output."""
    out = console()
    print_whole(out, summary_table(summaries))
    for name, summary in summaries.items():
        for line in counts(summary):
            out.print(f"{name}: {line}", soft_wrap=True)


def print_whole(out: Console, table: Table) -> None:
    """A table without truncation, even in a narrow terminal."""
    out.width = max(out.width, Measurement.get(out, out.options.update(max_width=10_000), table).maximum)
    out.print(table)
