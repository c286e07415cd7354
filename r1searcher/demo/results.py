"""What the demo shows at its end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.panel import Panel
from rich.table import Table

from r1searcher.common.terminal import SafeConsole
from r1searcher.episodes.trajectory import Trajectory
from r1searcher.report.live import trajectory_text
from r1searcher.report.plots import save_curves, terminal_curves
from r1searcher.rewards.format import answer_of_trajectory
from r1searcher.rewards.measures import View, shown_in
from r1searcher.rewards.metrics import score
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import read_metrics, to_row
from r1searcher.stages.held_out import read_trajectories


def held_out_line(metrics: Mapping[str, Any]) -> str:
    return "held out, sampled: " + " · ".join(
        f"{m.heading} {metrics[m.name]:.2f}" for m in shown_in(View.DEMO) if m.name in metrics
    )


def show_results(
    results: Mapping[str, Mapping[str, Any]], output: Path, curve: Path, minutes: float, console: SafeConsole
) -> None:
    """The held-out metrics of each part in `output`, the curves of its RL stages (saved to `curve`), one question
    before and after training, and where the files are."""
    runs = {name: RunFolder(output / name) for name in results}
    stages = {name: read_metrics(run) for name, run in runs.items() if name != "sft"}
    save_curves(stages, curve, "SmolLM2-135M learns to search")
    console.rule("what it learned")
    console.print(_table(results))
    console.print(terminal_curves([row for rows in stages.values() for row in rows]))
    last = runs[list(runs)[-1]]
    for title, trajectory in zip(("before", "after"), before_and_after(runs["sft"], last), strict=True):
        console.print(Panel(trajectory_text(to_row(trajectory)), title=title, title_align="left"))
    console.print(
        f"{minutes:.1f} minutes · metrics {output}/summary.json · curve {curve}\n"
        f"the model: {last.model} · every training episode: {output}/*/trajectories",
        soft_wrap=True,
    )


def _table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(title="held-out questions: sampled at temperature 1 (greedy)")
    table.add_column("")
    for name in results:
        table.add_column(name.replace("_", " "), justify="right")
    for m in shown_in(View.DEMO):
        table.add_row(m.heading, *(f"{r[m.name]:.2f} ({r['greedy'][m.name]:.2f})" for r in results.values()))
    return table


def before_and_after(first: RunFolder, last: RunFolder) -> tuple[Trajectory, Trajectory]:
    """The greedy trajectories of both runs for one held-out question: the one whose F1 rose most, and among those the
    one with most searches."""
    pairs = list(zip(read_trajectories(first, 0.0), read_trajectories(last, 0.0), strict=True))

    def learned(pair: tuple[Trajectory, Trajectory]) -> tuple[float, int]:
        before, after = (score(answer_of_trajectory(t) or "", t.gold_answers).f1 for t in pair)
        return after - before, len(pair[1].searches)

    return max(pairs, key=learned)
