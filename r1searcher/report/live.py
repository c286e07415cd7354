"""A run as it happens: a live panel in a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from r1searcher.common import terminal
from r1searcher.common.files import lines_in
from r1searcher.common.terminal import SafeConsole, outside
from r1searcher.episodes.trajectory import Author
from r1searcher.rewards.measures import NEW_TOKENS, REWARD, View, shown_in
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import finished_steps, latest_trajectory, read_heartbeats, read_metrics

SECONDS = "timing/step_total"
"""The engine's own figure of how long a step took."""

STYLES = {Author.PROMPT.value: "dim", Author.MODEL.value: "bold", Author.ENVIRONMENT.value: "cyan"}
ROWS_SHOWN = 10


class RunView(AbstractContextManager["RunView"]):
    """Follows the files of a run folder; `refresh` is called now and then while the engine works.

    `steps` is how many steps the run can have, `rollouts` how many episodes one has.
    """

    def __init__(
        self, run: RunFolder, title: str, steps: int, rollouts: int, console: SafeConsole | None = None
    ) -> None:
        self.run, self.title, self.steps, self.rollouts = run, title, steps, rollouts
        self.console = console or terminal.console(stderr=True)
        self._live: Live | None = None
        self._started = time.monotonic()
        self._steps_before = finished_steps(run)
        self._lines_said = self._steps_before
        self._heartbeats_said = len(read_heartbeats(run))

    def __enter__(self) -> "RunView":
        self.console.print(f"{self.title} · files in {self.run.path}")
        if self.console.is_terminal:
            self._live = Live(self._panel(), console=self.console, refresh_per_second=2, transient=True)
            self._live.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self.refresh()
        if self._live is not None:
            self._live.__exit__(*exc)
            self.console.print(steps_table(read_metrics(self.run)[-ROWS_SHOWN:]))

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

    def _new_rows(self) -> Iterator[Mapping[str, float]]:
        beats = read_heartbeats(self.run)
        for beat in beats[self._heartbeats_said :]:
            self.console.print(beat.message, soft_wrap=True)
        self._heartbeats_said = len(beats)
        for row in read_metrics(self.run):
            if row["step"] > self._lines_said:
                self._lines_said = int(row["step"])
                yield row

    def _left(self) -> str:
        done = finished_steps(self.run) - self._steps_before
        if done <= 0:
            return ""
        rows = read_metrics(self.run)[-5:]
        each = sum(row.get(SECONDS, 0.0) for row in rows) / len(rows)
        return f" · about {each * (self.steps - finished_steps(self.run)) / 60:.0f} min left" if each else ""

    def _panel(self) -> RenderableType:
        step = finished_steps(self.run)
        under_way = self.run.trajectories(step + 1)
        episodes = lines_in(under_way)
        done = step + min(1.0, episodes / self.rollouts) * 0.5  # the other half of a step is training
        minutes = (time.monotonic() - self._started) / 60
        head = outside(f"{self.title}  step {step}/{self.steps}  {minutes:.0f} min{self._left()}", "bold")
        parts: list[RenderableType] = [head, ProgressBar(total=self.steps, completed=done, width=60)]
        rows = read_metrics(self.run)[-ROWS_SHOWN:]
        if rows:
            parts.append(steps_table(rows))
        beats = read_heartbeats(self.run)
        if beats and time.time() - beats[-1].time < 30:
            parts.append(outside(beats[-1].message, "yellow"))
        latest = latest_trajectory(self.run, step + 1) or (latest_trajectory(self.run, step) if step else None)
        if latest:
            parts.append(Panel(trajectory_text(latest), title="latest trajectory", title_align="left"))
        return Group(*parts)


def steps_table(rows: Sequence[Mapping[str, float]]) -> Table:
    """One row per step: reward parts, rates and speed."""
    parts = sorted({key for row in rows for key in row if key.startswith("reward/")})
    table = Table(box=None, padding=(0, 1))
    table.add_column("step", justify="right")
    measures = shown_in(View.LIVE)
    headings = (*(m.heading for m in measures), *(part.removeprefix("reward/") + " part" for part in parts))
    for heading in (*headings, "tokens/s", "s"):
        table.add_column(heading, justify="right")
    for row in rows:
        values = [f"{row[key]:.3f}" if key in row else "" for key in (*(m.name for m in measures), *parts)]
        table.add_row(str(row["step"]), *values, f"{tokens_per_second(row):.0f}", f"{row.get(SECONDS, 0):.0f}")
    return table


def tokens_per_second(row: Mapping[str, float]) -> float:
    """Sampled tokens over the time of the rollouts, searches included; 0 where the engine did not say."""
    seconds = row.get("timing/generation", 0.0)
    return row.get(NEW_TOKENS.name, 0.0) * row.get("rollout/num_samples", 0.0) / seconds if seconds else 0.0


def trajectory_text(row: Mapping[str, Any]) -> Text:
    """A recorded episode as one reads it: what the model wrote in bold, what was found in color.

    `row` is one that `records.from_row` takes. Nothing that a model or a passage wrote is taken for markup.
    """
    parts = [outside(f"{row['question']}\n", "italic")]
    for segment in row["segments"]:
        if segment["author"] != Author.PROMPT.value:
            parts.append(outside(segment["text"], STYLES[segment["author"]]))
    parts.append(outside(f"\ngold: {', '.join(row['gold_answers'])}", "green"))
    if isinstance(row.get(REWARD.name), (int, float)):
        parts.append(outside(f"   {REWARD.heading} {row[REWARD.name]:.2f}   {row['stop']}", "dim"))
    return Text.assemble(*parts)
