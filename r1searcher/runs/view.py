"""A run as it happens: a live panel in a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator, Mapping
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
from r1searcher.common.terminal import SafeConsole, outside
from r1searcher.episodes.trajectory import Author
from r1searcher.runs.folder import RunFolder

COLUMNS = {
    "reward": "reward",
    "retrieval": "retrieval",
    "format": "format",
    "f1": "F1",
    "searches": "searches",
    "new_tokens": "tokens",
}
"""Metrics shown a step: key in `metrics.jsonl` -> heading."""

SECONDS = "timing/step_total"
"""The engine's own figure of how long a step took."""

STYLES = {Author.PROMPT.value: "dim", Author.MODEL.value: "bold", Author.ENVIRONMENT.value: "cyan"}
ROWS_SHOWN = 10


class RunView(AbstractContextManager["RunView"]):
    """Follows the files of a run folder; `refresh` is called now and then while the engine works.

    `steps` is how many steps the run can have, `rollouts` how many episodes one has.
    """

    def __init__(self, run: RunFolder, title: str, steps: int, rollouts: int, console: Console | None = None) -> None:
        self.run, self.title, self.steps, self.rollouts = run, title, steps, rollouts
        self.console = console or Console(stderr=True)
        self._live: Live | None = None
        self._started = time.monotonic()
        self._steps_before = run.finished_steps()
        self._lines_said = self._steps_before
        self._heartbeats_said = sum(1 for _ in read_rows(run.heartbeat))

    def __enter__(self) -> "RunView":
        self.console.print(f"{self.title} · files in {self.run.path}", highlight=False)
        if self.console.is_terminal:
            self._live = Live(self._panel(), console=self.console, refresh_per_second=2, transient=True)
            self._live.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self.refresh()
        if self._live is not None:
            self._live.__exit__(*exc)
            self.console.print(steps_table(list(read_rows(self.run.metrics))[-ROWS_SHOWN:]))

    def refresh(self) -> None:
        if self._live is not None:
            self._live.update(self._panel())
            return
        for row in self._new_rows():
            figures = " ".join(f"{heading} {row[key]:.3f}" for key, heading in COLUMNS.items() if key in row)
            self.console.print(
                f"step {row['step']}/{self.steps} {figures} {row.get(SECONDS, 0):.0f} s{self._left()}",
                highlight=False,
                soft_wrap=True,
            )
            latest = last_row(self.run.trajectories(row["step"]))
            if latest:
                self.console.print(Padding(trajectory_text(latest), (0, 0, 0, 4)))

    def _new_rows(self) -> Iterator[Mapping[str, Any]]:
        beats = list(read_rows(self.run.heartbeat))
        for beat in beats[self._heartbeats_said :]:
            self.console.print(beat["say"], highlight=False, soft_wrap=True)
        self._heartbeats_said = len(beats)
        for row in read_rows(self.run.metrics):
            if row["step"] > self._lines_said:
                self._lines_said = row["step"]
                yield row

    def _left(self) -> str:
        done = self.run.finished_steps() - self._steps_before
        if done <= 0:
            return ""
        rows = list(read_rows(self.run.metrics))[-5:]
        each = sum(row.get(SECONDS, 0.0) for row in rows) / len(rows)
        return f" · about {each * (self.steps - self.run.finished_steps()) / 60:.0f} min left" if each else ""

    def _panel(self) -> RenderableType:
        step = self.run.finished_steps()
        under_way = self.run.trajectories(step + 1)
        episodes = sum(1 for _ in under_way.open("rb")) if under_way.exists() else 0
        done = step + min(1.0, episodes / self.rollouts) * 0.5  # the other half of a step is training
        minutes = (time.monotonic() - self._started) / 60
        head = Text(f"{self.title}  step {step}/{self.steps}  {minutes:.0f} min{self._left()}", style="bold")
        parts: list[RenderableType] = [head, ProgressBar(total=self.steps, completed=done, width=60)]
        rows = list(read_rows(self.run.metrics))[-ROWS_SHOWN:]
        if rows:
            parts.append(steps_table(rows))
        beat = last_row(self.run.heartbeat)
        if beat and time.time() - beat["time"] < 30:
            parts.append(Text(beat["say"], style="yellow"))
        latest = last_row(under_way) or (last_row(self.run.trajectories(step)) if step else None)
        if latest:
            parts.append(Panel(trajectory_text(latest), title="latest trajectory", title_align="left"))
        return Group(*parts)


def steps_table(rows: list[dict[str, Any]]) -> Table:
    """One row a step: reward parts, rates and speed."""
    parts = sorted({key for row in rows for key in row if key.startswith("reward/")})
    table = Table(box=None, padding=(0, 1))
    table.add_column("step", justify="right")
    for heading in (*COLUMNS.values(), *(part.removeprefix("reward/") + " part" for part in parts), "tokens/s", "s"):
        table.add_column(heading, justify="right")
    for row in rows:
        figures = [f"{row[key]:.3f}" if key in row else "" for key in (*COLUMNS, *parts)]
        table.add_row(str(row["step"]), *figures, f"{tokens_per_second(row):.0f}", f"{row.get(SECONDS, 0):.0f}")
    return table


def tokens_per_second(row: Mapping[str, Any]) -> float:
    """Sampled tokens over the time of the rollouts, searches included; 0 where the engine did not say."""
    seconds = row.get("timing/generation", 0.0)
    return float(row["new_tokens"] * row["rollout/num_samples"] / seconds) if seconds else 0.0


def trajectory_text(row: Mapping[str, Any]) -> Text:
    """A recorded episode as one reads it: what the model wrote in bold, what was found in colour.

    Built from `Text` objects: nothing that a model or a passage wrote is taken for markup.
    """
    text = Text()
    text.append(f"{row['question']}\n", style="italic")
    for segment in row["segments"]:
        if segment["author"] != Author.PROMPT.value:
            text.append(printable(segment["text"]), style=STYLES[segment["author"]])
    text.append(f"\ngold: {', '.join(row['golds'])}", style="green")
    if "reward" in row:
        text.append(f"   reward {row['reward']:.2f}   {row['stop']}", style="dim")
    return text


def printable(text: str) -> str:
    """Without the control characters that would move a terminal's cursor or change its state."""
    return "".join(c if c == "\n" or c == "\t" or (c.isprintable()) else "\N{REPLACEMENT CHARACTER}" for c in text)
