"""The plot of `r1s recall`: recall by number of passages, and the time per search."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1searcher.common.terminal import visible
from r1searcher.errors import InputError
from r1searcher.report.intervals import Interval
from r1searcher.report.plots import save_figure

SUFFIXES = (".png", ".svg", ".pdf")
_LONGEST_NAME = 100
_LINEAR = 20
"""Times are on a linear axis if the longest is at most this many times the shortest."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One retriever: recall by number of passages; median and 95th percentile of its milliseconds per search."""

    name: str
    recall: Mapping[int, Interval]
    median_ms: float
    p95_ms: float


def require_plots(file: Path) -> None:
    """Raises `InputError` for a file of another kind, and if matplotlib is not installed."""
    if file.suffix.lower() not in SUFFIXES:
        raise InputError(f"--plot {file}: the name must end in one of {', '.join(SUFFIXES)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError("--plot needs matplotlib: pip install 'r1searcher[plot]'") from error


def save_recall(curves: Sequence[Curve], file: Path, title: str) -> None:
    """Plot the curves into a new file, in the format of its suffix. Raises `FileError`."""
    save_figure(lambda: draw_recall(curves, title), file)


def draw_recall(curves: Sequence[Curve], title: str) -> Any:
    """A matplotlib figure. Bars are 95 % intervals on the left, and lead from the median to the 95th percentile on the
    right."""
    import matplotlib.pyplot as plt

    height = 3.5 + 0.25 * len(curves)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, height), layout="constrained", gridspec_kw={"width_ratios": [3, 2]}
    )
    for number, curve in enumerate(curves):
        shift = 0.08 * (number - (len(curves) - 1) / 2)  # intervals next to each other
        means = curve.recall.values()
        below = [mean.value - mean.low for mean in means]
        above = [mean.high - mean.value for mean in means]
        left.errorbar(
            [k + shift for k in curve.recall], [mean.value for mean in means], yerr=[below, above],
            fmt=".-", capsize=2, color=f"C{number % 10}",
        )  # fmt: skip
        right.errorbar(
            [curve.median_ms], [number], xerr=[[0], [curve.p95_ms - curve.median_ms]],
            fmt="o", capsize=3, color=f"C{number % 10}",
        )  # fmt: skip
    left.set_xticks(sorted({k for curve in curves for k in curve.recall}))
    left.set_ylim(0, 1)
    left.set_xlabel("passages")
    left.set_ylabel("share of questions with the answer found")
    fastest, slowest = min(curve.median_ms for curve in curves), max(curve.p95_ms for curve in curves)
    if slowest > _LINEAR * fastest:
        right.set_xscale("log")
        right.xaxis.set_major_formatter("{x:g}")
        right.xaxis.set_minor_formatter("")
    else:
        right.set_xlim(0, 1.1 * slowest)
    right.set_xlabel("milliseconds per search: median, 95th percentile")
    right.set_yticks([])
    right.set_ylim(len(curves) - 0.5, -0.5)
    names = [_label(curve.name) for curve in curves]  # not as labels: those that begin with _ would be left out
    figure.legend(left.containers, names, loc="outside lower left", fontsize=9)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.suptitle(_label(title))
    return figure


def _label(text: str) -> str:
    """Text from outside, without mathematics and of limited length."""
    shown = visible(text)
    shown = shown if len(shown) <= _LONGEST_NAME else f"{shown[: _LONGEST_NAME - 1]}…"
    return shown.replace("$", r"\$")
