"""The plots of the page, as SVG."""

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from r1searcher.report.scoring import MetricSummary
from r1searcher.report.tables import name_of
from r1searcher.rewards.measures import View, shown_in

Runs = Mapping[str, Sequence[Mapping[str, float]]]
"""Rows of metrics by the name of their run."""

NOT_PLOTTED = ("step", "time")

FAMILIES = {
    "reward/": "reward parts",
    "format/": "rules broken",
    "stop/": "stop reasons",
    "timing/": "seconds",
    "rollout/": "rollouts",
    "": "others",
}
"""Beginnings of keys, and what the curves of such keys show."""


def curves(runs: Runs) -> str:
    """A small learning curve for each measure of the steps of runs; nothing for an evaluation."""
    return "".join(_curve(m.heading, points, 1.0) for m in shown_in(View.CURVE) if any(points := _points(runs, m.name)))


def every_curve(runs: Runs) -> str:
    """Collapsed curves of every other number that was logged, by family; those that are always 0 are only named."""
    plotted = {*NOT_PLOTTED, *(m.name for m in shown_in(View.CURVE))}
    keys = sorted({key for rows in runs.values() for row in rows for key in row if key not in plotted})
    families: dict[str, list[str]] = {beginning: [] for beginning in FAMILIES}
    for key in keys:
        families[next(beginning for beginning in FAMILIES if key.startswith(beginning))].append(key)
    shown = ""
    for beginning, members in families.items():
        found = {key: _points(runs, key) for key in members}
        zero = [key for key, lines in found.items() if not any(value for line in lines for _, value in line)]
        figures = "".join(_curve(key.removeprefix(beginning), found[key]) for key in members if key not in zero)
        named = f"<p>always 0: {escape(', '.join(key.removeprefix(beginning) for key in zero))}</p>" if zero else ""
        if members:
            shown += f"<details><summary>Every step: {FAMILIES[beginning]}</summary>{figures}{named}</details>"
    return shown


def legend(runs: Runs) -> str:
    """Which color is which run; nothing for one."""
    if len(runs) < 2:
        return ""
    names = "".join(f'<span class="run{n % COLORS}">{escape(name)}</span>' for n, name in enumerate(runs))
    return f'<p class="facts legend">{names}</p>'


COLORS = 6
"""Colors of runs in `page.css`."""


def _points(runs: Runs, key: str) -> list[list[tuple[float, float]]]:
    """A line per run: (step, value) of the steps that have the key."""
    return [[(row["step"], row[key]) for row in rows if key in row] for rows in runs.values()]


def _curve(label: str, lines: Sequence[Sequence[tuple[float, float]]], top: float = 0.0) -> str:
    """A figure with a line per run. Its scale has 0 and, if it is given, `top`."""
    points = [point for line in lines for point in line]
    values = [value for _, value in points]
    low, high = min(0.0, *values), max(top, 0.0, *values)
    first, last = min(step for step, _ in points), max(step for step, _ in points)
    across, up = 196 / max(1.0, last - first), 90 / ((high - low) or 1.0)
    drawn = ""
    for number, line in enumerate(lines):
        at = " ".join(f"{34 + across * (step - first):.1f},{104 - up * (value - low):.1f}" for step, value in line)
        drawn += f'<polyline class="curve run{number % COLORS}" points="{at}"/>'
    texts = [(30, 18, "end", f"{high:.3g}"), (30, 108, "end", f"{low:.3g}")]
    texts += [(34, 120, "start", f"{first:g}"), (230, 120, "end", f"{last:g}")]
    digits = ".2f" if top else ".3g"
    ends = "; ".join(f"{line[0][1]:{digits}} to {line[-1][1]:{digits}}" for line in lines if line)
    return (
        f'<figure><svg width="240" height="124" role="img" aria-label="{escape(label)} per step">'
        + "".join(f'<text x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>' for x, y, anchor, text in texts)
        + f'<line class="axis" x1="34" x2="230" y1="104" y2="104"/>{drawn}</svg>'
        f"<figcaption>{escape(label)}: {ends}</figcaption></figure>"
    )


def interval_plot(summaries: Mapping[str, MetricSummary]) -> str:
    """Answer metrics on a scale of 0 to 1, each a dot with its interval."""
    metrics = [m.name for m in shown_in(View.INTERVAL)]
    lines, y = "", 14
    for name, summary in summaries.items():
        for metric in metrics:
            if not (found := summary.metrics.get(metric)):
                continue
            low, value, high = (190 + 300 * x for x in (found.low, found.value, found.high))
            label = escape(name_of(metric) if len(summaries) == 1 else f"{name}: {name_of(metric)}")
            lines += (
                f'<text x="184" y="{y + 4}" text-anchor="end">{label}</text>'
                f'<line class="axis" x1="190" x2="490" y1="{y}" y2="{y}"/>'
                f'<line class="whisker" x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>'
                f'<circle class="right" cx="{value:.1f}" cy="{y}" r="4"/>'
            )
            y += 18
    ticks = "".join(
        f'<text x="{190 + 300 * t / 4:.0f}" y="{y + 6}" text-anchor="middle">{t / 4:g}</text>' for t in range(5)
    )
    return (
        f'<figure><svg width="510" height="{y + 12}" role="img" aria-label="Answer metrics">{lines}{ticks}</svg>'
        "<figcaption>Answer metrics with 95 % intervals</figcaption></figure>"
    )


def searches_plot(trajectories: Sequence[Mapping[str, Any]]) -> str:
    """Histogram of searches per trajectory, right answers below the others."""
    totals = Counter(min(int(t["searches"]), 10) for t in trajectories)
    right = Counter(min(int(t["searches"]), 10) for t in trajectories if t["verdict"] == "right")
    highest = max(totals.values(), default=1)
    bars = ""
    for searches in range(max(totals, default=0) + 1):
        x = 10 + 34 * searches
        good, all_ = (110 * n / highest for n in (right[searches], totals[searches]))
        label = f"{searches}" if searches < 10 else "10+"
        bars += (
            f'<rect class="right" x="{x}" y="{130 - good:.1f}" width="26" height="{good:.1f}"/>'
            f'<rect class="wrong" x="{x}" y="{130 - all_:.1f}" width="26" height="{all_ - good:.1f}"/>'
            f'<text x="{x + 13}" y="{126 - all_:.1f}" text-anchor="middle">{totals[searches]}</text>'
            f'<text x="{x + 13}" y="144" text-anchor="middle">{label}</text>'
        )
    width = 20 + 34 * (max(totals, default=0) + 1)
    return (
        f'<figure><svg width="{width}" height="150" role="img" aria-label="Searches per question">{bars}</svg>'
        "<figcaption>Searches per question: right (EM, green) and not (red)</figcaption></figure>"
    )
