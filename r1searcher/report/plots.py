"""Learning curves: an image file, and a small plot for the terminal."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.text import Text

from r1searcher.common.files import writing
from r1searcher.common.terminal import outside
from r1searcher.rewards.measures import Measure, View, shown_in


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCurve:
    """One stage in a plot: the metric rows of its steps, and the held-out metrics of its model, if it was evaluated."""

    name: str
    rows: Sequence[Mapping[str, Any]] = ()
    held_out: Mapping[str, Any] = field(default_factory=dict)


Chains = Mapping[str, Sequence[StageCurve]]
"""Consecutive stages, by the name of their chain; chains are next to each other, for comparison."""


def save_curves(chains: Chains, file: Path, title: str) -> None:
    """Plot the steps of one or more chains of stages as a PNG; see `draw_curves`."""
    save_figure(lambda: draw_curves(chains, title), file)


def save_figure(draw: Callable[[], Any], file: Path) -> None:
    """Draw without a display, and write the figure in the format of the file's suffix. Raises `FileError`."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure = draw()
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=120)
    plt.close(figure)


def draw_curves(chains: Chains, title: str) -> Any:
    """A matplotlib figure: a column per chain, and a panel per unit, so that counts do not share an axis with rates.

    Lines are the sampled rollouts of training, diamonds the held-out questions after a stage, sampled too. A stage
    without steps, such as an SFT, has only its diamonds, before the first step.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    stages = [stage for chain in chains.values() for stage in chain]
    drawn = [m for m in shown_in(View.CURVE) if any(_values(stage, m) for stage in stages)]
    units = list(dict.fromkeys(m.unit for m in drawn)) or [""]
    steps = [max(1, sum(len(stage.rows) for stage in chain)) for chain in chains.values()]
    figure, grid = plt.subplots(
        len(units),
        len(chains),
        figsize=(9, 3 + 1.5 * len(units)),
        layout="constrained",
        squeeze=False,
        sharex="col",
        sharey="row",
        gridspec_kw={"height_ratios": [2, *(1 for _ in units[1:])], "width_ratios": [n + 1 for n in steps]},
    )
    for column, (name, chain) in enumerate(chains.items()):
        for row, unit in enumerate(units):
            _draw_panel(grid[row][column], [m for m in drawn if m.unit == unit], chain, names=row == 0)
            grid[row][0].set_ylabel(unit)
        grid[0][column].set_title(name, pad=18, fontsize=10)
        grid[-1][column].set_xlabel("step")
        grid[-1][column].xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    entries = {label: handle for axes in grid.flat for label, handle in _legend(axes)}  # one per measure
    figure.legend(entries.values(), entries.keys(), loc="outside right upper")
    figure.suptitle(title)
    return figure


def _values(stage: StageCurve, measure: Measure) -> list[float]:
    return [row[measure.name] for row in (*stage.rows, stage.held_out) if row.get(measure.name) is not None]


def _draw_panel(axes: Any, measures: Sequence[Measure], chain: Sequence[StageCurve], *, names: bool) -> None:
    colors = {m: f"C{number}" for number, m in enumerate(shown_in(View.CURVE))}
    start = 0
    for stage in chain:
        end = start + len(stage.rows)
        for m in measures:
            values = [float("nan") if row.get(m.name) is None else row[m.name] for row in stage.rows]
            axes.plot(range(start + 1, end + 1), values, ".-", color=colors[m], label=m.heading)
            if (held_out := stage.held_out.get(m.name)) is not None:
                axes.plot([end + 0.4], [held_out], "D", color=colors[m], markerfacecolor="none", label="held out")
        if stage.rows:
            axes.axvline(start + 0.5, color="0.7", linewidth=1)
        if names:
            place = axes.get_xaxis_transform()
            axes.text(start + 0.6, 1.01, stage.name if stage.rows else "", transform=place, fontsize=9, color="0.4")
        start = end
    axes.grid(alpha=0.3)


def _legend(axes: Any) -> Iterator[tuple[str, Any]]:
    handles, labels = axes.get_legend_handles_labels()
    return zip(labels, handles, strict=True)


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
