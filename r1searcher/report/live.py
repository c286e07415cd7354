"""A run while it trains: a live panel in a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.text import Text

from r1searcher.common import terminal
from r1searcher.common.files import LineCounter
from r1searcher.common.terminal import SafeConsole, outside
from r1searcher.episodes.trajectory import Author
from r1searcher.report.tables import SECONDS, logged_measures, steps_table
from r1searcher.rewards.measures import REWARD, View, shown_in
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import latest_trajectory, read_heartbeats, read_metrics, trajectory_files

STYLES = {Author.PROMPT.value: "dim", Author.MODEL.value: "bold", Author.ENVIRONMENT.value: "cyan"}
ROWS_SHOWN = 10


class RunView(AbstractContextManager["RunView"]):
    """Follows the files of a run folder; `refresh` is called about twice a second while the engine works.

    `steps` is the maximum number of steps, `rollouts` the episodes per step.
    """

    def __init__(
        self, run: RunFolder, title: str, steps: int, rollouts: int, console: SafeConsole | None = None
    ) -> None:
        self.run, self.title, self.steps, self.rollouts = run, title, steps, rollouts
        self.console = console or terminal.console(stderr=True)
        self._live: Live | None = None
        self._started = time.monotonic()
        self._metrics: list[dict[str, float]] = []
        self._metrics_size = -1
        self._steps_before = self._steps_printed = self._step()
        self._heartbeats_printed = set(map(str, read_heartbeats(run)))
        self._episodes = LineCounter()

    def __enter__(self) -> "RunView":
        self.console.print(f"{self.title} · files in {self.run.path}")
        if self.console.is_terminal:
            self._live = Live(self._panel(), console=self.console, refresh_per_second=2, transient=True)
            self._live.__enter__()
        else:
            self.console.print(explained(), soft_wrap=True)
        return self

    def __exit__(self, *exc: Any) -> None:
        self.refresh()
        if self._live is not None:
            self._live.__exit__(*exc)
            self.console.print(steps_table(self._rows()[-ROWS_SHOWN:]))

    def refresh(self) -> None:
        if self._live is not None:
            self._live.update(self._panel())
            return
        for row in self._new_rows():
            values = " ".join(f"{m.heading} {row[m.name]:.3f}" for m in shown_in(View.LIVE) if m.name in row)
            self.console.print(
                f"step {row['step']}/{self.steps} {values} {row.get(SECONDS, 0):.0f} s{self._left()}", soft_wrap=True
            )
            latest = latest_trajectory(self.run, int(row["step"]))
            if latest:
                self.console.print(Padding(trajectory_text(latest), (0, 0, 0, 4)))

    def _rows(self) -> list[dict[str, float]]:
        """The rows of `metrics.jsonl`, read again only if the file's size changed."""
        size = self.run.metrics.stat().st_size if self.run.metrics.exists() else 0
        if size != self._metrics_size:
            self._metrics, self._metrics_size = read_metrics(self.run), size
        return self._metrics

    def _step(self) -> int:
        """The number of finished steps."""
        rows = self._rows()
        return int(rows[-1]["step"]) if rows else 0

    def _new_rows(self) -> Iterator[Mapping[str, float]]:
        for beat in read_heartbeats(self.run):
            if str(beat) not in self._heartbeats_printed:
                self._heartbeats_printed.add(str(beat))
                self.console.print(beat.message, soft_wrap=True)
        for row in self._rows():
            if row["step"] > self._steps_printed:
                self._steps_printed = int(row["step"])
                yield row

    def _left(self) -> str:
        step = self._step()
        if step <= self._steps_before:
            return ""
        rows = self._rows()[-5:]
        each = sum(row.get(SECONDS, 0.0) for row in rows) / len(rows)
        return f" · about {each * (self.steps - step) / 60:.0f} min left" if each else ""

    def _now(self, step: int, episodes: int) -> str:
        """What the engine is doing."""
        if step >= self.steps or self.run.ending.exists():
            return "saving the model"
        if 0 < episodes < self.rollouts:
            return f"sampling episodes: {episodes} of {self.rollouts}"
        if episodes:
            return f"training on the {self.rollouts} episodes"
        return "sampling episodes" if step > self._steps_before else "starting vLLM and the trainer"

    def _panel(self) -> RenderableType:
        step = self._step()
        episodes = self._episodes.count(trajectory_files(self.run.trajectories(step + 1)))
        done = step + min(1.0, episodes / self.rollouts) * 0.5  # the other half of a step is training
        minutes = (time.monotonic() - self._started) / 60
        head = outside(f"{self.title}  step {step}/{self.steps}  {minutes:.0f} min{self._left()}", "bold")
        bar = ProgressBar(total=self.steps, completed=done, width=60)
        parts: list[RenderableType] = [head, Padding(bar, 0)]  # a bar alone does not end its line
        parts.append(outside(self._now(step, episodes), "dim"))
        if rows := self._rows()[-ROWS_SHOWN:]:
            parts.append(steps_table(rows))
        parts.append(outside(explained(rows), "dim"))
        beats = read_heartbeats(self.run)
        if beats and time.time() - beats[-1].time < 30:
            parts.append(outside(beats[-1].message, "yellow"))
        recorded = self.run.recorded_steps()  # with asynchronous rollouts some steps ahead of training
        latest = latest_trajectory(self.run, recorded[-1][0]) if recorded else None
        if latest:
            parts.append(Panel(trajectory_text(latest), title="latest trajectory", title_align="left"))
        return Group(*parts)


def explained(rows: Sequence[Mapping[str, float]] = ()) -> str:
    """What the columns of the table of `rows` mean, in one sentence; without rows, those of any run."""
    shown = logged_measures(rows) if rows else [m for m in shown_in(View.LIVE) if m.is_in_training]
    measures = "; ".join(f"{m.heading}: {m.meaning.partition(';')[0]}" for m in shown)
    return f"means over the episodes of a step: {measures}; tokens/s: tokens sampled per second; s: seconds of the step"


def trajectory_text(row: Mapping[str, Any]) -> Text:
    """A recorded episode to read: what the model wrote in bold, what was found in color.

    `row` is one that `records.from_row` accepts. Text of a model or a passage is never treated as markup.
    """
    parts = [outside(f"{row['question']}\n", "italic")]
    for segment in row["segments"]:
        if segment["author"] != Author.PROMPT.value:
            parts.append(outside(segment["text"], STYLES[segment["author"]]))
    parts.append(outside(f"\ngold: {', '.join(row['gold_answers'])}", "green"))
    if isinstance(row.get(REWARD.name), (int, float)):
        parts.append(outside(f"   {REWARD.heading} {row[REWARD.name]:.2f}   {row['stop']}", "dim"))
    return Text.assemble(*parts)
