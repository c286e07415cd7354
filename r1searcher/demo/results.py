"""What the demo shows at its end."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.panel import Panel
from rich.table import Table

from r1searcher.common.terminal import SafeConsole
from r1searcher.episodes.trajectory import Trajectory
from r1searcher.report.intervals import Interval
from r1searcher.report.live import trajectory_text
from r1searcher.report.plots import StageCurve, save_curves, terminal_curves
from r1searcher.report.tables import print_whole
from r1searcher.rewards.format import answer_of_trajectory
from r1searcher.rewards.measures import View, shown_in
from r1searcher.rewards.metrics import score
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import read_metrics, to_row
from r1searcher.stages.held_out import DECODING, finished_evaluation, held_out_intervals, read_trajectories

PARTS = {"sft": "SFT", "stage1": "stage 1", "stage2": "stage 2", "contrast": "stage 2 alone"}
"""What the parts are called, by the names of their runs."""


def held_out_line(metrics: Mapping[str, Any]) -> str:
    return "held out, sampled: " + " · ".join(
        f"{m.heading} {metrics[m.name]:.2f}" for m in shown_in(View.DEMO) if m.name in metrics
    )


def show_results(
    results: Mapping[str, Mapping[str, Any]],
    output: Path,
    console: SafeConsole,
    *,
    summary: Path,
    curve: Path,
    minutes: float,
) -> None:
    """The held-out metrics of each part in `output`, also of a contrast run or of both stages from an earlier start,
    the curves of the RL stages (saved to `curve`), one question before and after training, and where the files are, one
    of them `summary`."""
    finished = {name: metrics for name in PARTS if (metrics := finished_evaluation(RunFolder(output / name)))}
    save_curves(_chains(finished, output), curve, "SmolLM2-135M learns to search")
    console.rule("what it learned")
    print_whole(console, held_out_table(output, finished))
    console.print(terminal_curves([row for name in results for row in read_metrics(RunFolder(output / name))]))
    first, last = (RunFolder(output / list(results)[place]) for place in (0, -1))
    for title, trajectory in zip(("before", "after"), before_and_after(first, last), strict=True):
        console.print(Panel(trajectory_text(to_row(trajectory)), title=title, title_align="left"))
    console.print(
        f"{minutes:.1f} minutes · metrics {summary} · curve {curve}\n"
        f"the model: {last.model} · every training episode: {output}/*/trajectories",
        soft_wrap=True,
    )


def _chains(finished: Mapping[str, Mapping[str, Any]], output: Path) -> dict[str, list[StageCurve]]:
    """Both stages, and stage 2 alone from the same SFT, as far as they are finished."""

    def curve(name: str) -> StageCurve:
        rows = [] if name == "sft" else read_metrics(RunFolder(output / name))
        return StageCurve(name=PARTS[name], rows=rows, held_out=finished[name])

    chains = {"stage 1, then stage 2": ("sft", "stage1", "stage2"), "stage 2 alone": ("sft", "contrast")}
    return {
        title: [curve(name) for name in names if name in finished]
        for title, names in chains.items()
        if names[-1] in finished
    }


def held_out_table(output: Path, parts: Iterable[str]) -> Table:
    """A row for each measure, sampled and greedy, and a column for each part: mean and 95 % interval."""
    title = "held-out questions, sampled at temperature 1 and greedy: mean and 95 % interval"
    table = Table(title=title, box=None, padding=(0, 1))
    table.add_column("")
    table.add_column("")
    columns = []
    for name in parts:
        table.add_column(PARTS[name], justify="right", no_wrap=True)
        columns.append(held_out_intervals(RunFolder(output / name)))
    for m in shown_in(View.DEMO):
        for how in DECODING:
            cells = [_cell(column[how].get(m.name)) for column in columns]
            table.add_row(m.heading if how == "sampled" else "", how, *cells)
    return table


def _cell(interval: Interval | None) -> str:
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]" if interval else ""


def before_and_after(first: RunFolder, last: RunFolder) -> tuple[Trajectory, Trajectory]:
    """The greedy trajectories of both runs for one held-out question: the one whose F1 rose most, and among those the
    one with most searches."""
    pairs = list(zip(read_trajectories(first, 0.0), read_trajectories(last, 0.0), strict=True))

    def learned(pair: tuple[Trajectory, Trajectory]) -> tuple[float, int]:
        before, after = (score(answer_of_trajectory(t) or "", t.gold_answers).f1 for t in pair)
        return after - before, len(pair[1].searches)

    return max(pairs, key=learned)
