"""`r1s show`: the episodes of a run or of an evaluation in a terminal, one at a time.

In a terminal it reads a command after each: n(ext), p(revious), a number, g(roup), /words of a question, q(uit).
Elsewhere it prints all episodes, for a pager or a file.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from r1searcher.common import terminal
from r1searcher.common.terminal import SafeConsole, outside
from r1searcher.errors import InputError
from r1searcher.evaluation.reports import read_folder
from r1searcher.report.contents import Records
from r1searcher.report.live import trajectory_text
from r1searcher.rewards.format import answer_of_trajectory
from r1searcher.rewards.measures import REWARD
from r1searcher.runs.records import from_row

HELP = "n next · p previous · NUMBER · g the question's group · /WORDS questions with these words · q quit"

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ShowRequest:
    """The arguments of `r1s show`. `words` are words of the question, in any case."""

    folder: Path
    steps: Sequence[int] = ()
    words: str = ""


def run_show(request: ShowRequest) -> None:
    """Show the episodes. Raises `InputError` for any other folder, and if no question has the words."""
    browser = Browser(read_folder(request.folder, request.steps), request.words)
    screen = terminal.console()
    if screen.is_terminal:
        interact(browser, screen)
        return
    for number in range(len(browser.rows)):
        screen.print(browser.episode(number), soft_wrap=True)


def interact(browser: "Browser", screen: SafeConsole, read: Callable[[str], str] = input) -> None:
    """Show an episode, read a command, until q or the end of the input."""
    number = 0
    screen.print(browser.episode(number), soft_wrap=True)
    while True:
        try:
            said = read(f"{HELP}\n> ").strip()
        except EOFError:
            return
        if said == "q":
            return
        if said == "g":
            screen.print(browser.group(number))
            continue
        try:
            number = browser.after(number, said)
        except InputError as error:
            screen.print(str(error), style="yellow", soft_wrap=True)
            continue
        screen.print(browser.episode(number), soft_wrap=True)


class Browser:
    """Episodes with what identifies their groups. `words` limits them to questions with these words."""

    def __init__(self, records: Records, words: str = "") -> None:
        self.records = records
        self.rows = [row for row in records.trajectories if words.lower() in row["question"].lower()]
        if not self.rows:
            raise InputError(f"no question has the words {words!r}: give others")

    def episode(self, number: int) -> RenderableType:
        """An episode under its place and its reward parts."""
        row = self.rows[number]
        parts = ", ".join(f"{name} {value:g}" for name, value in dict(row.get("parts", {})).items())
        head = f"{number + 1} of {len(self.rows)} · {self.records.group_of(row)}" + (f" · {parts}" if parts else "")
        return Text.assemble(outside(f"{head}\n", "bold cyan"), trajectory_text(row), "\n")

    def group(self, number: int) -> RenderableType:
        """The samples of an episode's question, the highest reward first."""
        table = Table("number", "reward", "parts", "searches", "stopped", "answer", box=None, padding=(0, 1))
        for other in sorted(self._samples(number), key=lambda one: -float(self.rows[one].get(REWARD.name) or 0)):
            row = self.rows[other]
            reward = row.get(REWARD.name)
            table.add_row(
                str(other + 1),
                f"{reward:.2f}" if isinstance(reward, (int, float)) else "",
                ", ".join(f"{name} {value:g}" for name, value in dict(row.get("parts", {})).items()),
                str(len(row["searches"])),
                row["stop"],
                answer_of_trajectory(from_row(row)) or "none",
                style="bold" if other == number else "",
            )
        return table

    def _samples(self, number: int) -> Iterator[int]:
        wanted = self.records.samples_of(self.rows[number])
        return (other for other, row in enumerate(self.rows) if self.records.samples_of(row) == wanted)

    def after(self, number: int, said: str) -> int:
        """The episode that a command names, from episode `number`. Raises `InputError` if there is none."""
        if said in ("n", "", "p"):
            wanted = number + (-1 if said == "p" else 1)
        elif said.isdecimal():
            wanted = int(said[:9]) - 1
        elif said.startswith("/"):
            following = [*range(number + 1, len(self.rows)), *range(number + 1)]
            words = said[1:].strip().lower()
            wanted = next((n for n in following if words in self.rows[n]["question"].lower()), -1)
        else:
            raise InputError(f"{said[:40]!r} is not a command: {HELP}")
        if not 0 <= wanted < len(self.rows):
            raise InputError("there is no such episode")
        return wanted
