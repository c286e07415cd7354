"""Learning curves: an image file, and a small plot for the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from r1searcher.common.files import writing
from r1searcher.common.terminal import outside
from r1searcher.rewards.measures import View, shown_in


def save_curves(stages: Mapping[str, Sequence[Mapping[str, Any]]], file: Path, title: str) -> None:
    """Plot the metric rows of one or more consecutive stages, separated by vertical lines, as a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    rows = [row for stage in stages.values() for row in stage]
    for m in shown_in(View.CURVE):
        values = [row.get(m.name) for row in rows]
        if any(value is not None for value in values):
            drawn = [float("nan") if value is None else value for value in values]
            axes.plot(range(1, len(rows) + 1), drawn, ".-", label=m.heading)
    start = 0
    for name, stage in stages.items():
        axes.axvline(start + 0.5, color="0.7", linewidth=1)
        axes.text(start + 0.6, 1.01, name, transform=axes.get_xaxis_transform(), fontsize=9, color="0.4")
        start += len(stage)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.set_title(title, pad=18)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=120)
    plt.close(figure)


BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], low: float = 0.0, high: float = 1.0) -> str:
    """Values as block characters between `low` and `high`.

    >>> sparkline([0.0, 0.5, 1.0])
    '▁▅█'
    """
    span = (high - low) or 1.0
    return "".join(BARS[min(7, max(0, int((value - low) / span * 8)))] for value in values)


def terminal_curves(rows: Sequence[Mapping[str, Any]]) -> Text:
    """A sparkline for each measure, with its first and last value."""
    lines = []
    for m in shown_in(View.CURVE):
        values = [float(row[m.name]) for row in rows if row.get(m.name) is not None]
        if values:
            low, high = min(0.0, *values), max(1.0, *values)
            lines.append(f"{m.heading:>15} {values[0]:5.2f} {sparkline(values, low, high)} {values[-1]:.2f}\n")
    return outside("".join(lines))
