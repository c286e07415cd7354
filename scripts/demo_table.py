"""The results of several runs of `r1s demo` as the Markdown tables of docs/demo.md.

    python scripts/demo_table.py runs/demo-11 runs/demo-12 …

First F1 of all runs, then everything of each. Means over the held-out questions, sampled at temperature 1 and greedy,
with 95 % intervals (bootstrap over questions).
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from r1searcher.common.files import parse_json, read_text
from r1searcher.demo.results import DECODING, PARTS
from r1searcher.report.intervals import Interval
from r1searcher.rewards.measures import F1_ONE_HOP, F1_TWO_HOP, View, shown_in
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import read_metrics
from r1searcher.stages.held_out import finished_evaluation, held_out_intervals

Column = dict[str, dict[str, Interval]]
"""Decoding -> measure -> mean and interval, of one part."""


def columns(output: Path) -> dict[str, Column]:
    """The finished parts of a demo."""
    finished = [name for name in PARTS if finished_evaluation(RunFolder(output / name))]
    return {
        name: {how: held_out_intervals(RunFolder(output / name), t) for how, t in DECODING.items()} for name in finished
    }


def number(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")


def with_interval(found: Interval | None) -> str:
    return f"{number(found.value)} [{number(found.low)}, {number(found.high)}]" if found else ""


def rows(cells: Iterable[Sequence[str]]) -> Iterator[str]:
    for place, row in enumerate(cells):
        yield "| " + " | ".join(row) + " |"
        if place == 0:
            yield "|" + "---|" * len(row)


def summary(outputs: Sequence[Path]) -> Iterator[str]:
    """F1 by number of hops: a row per run, sampled with greedy in brackets."""
    parts = {output: columns(output) for output in outputs}
    names = [name for name in PARTS if any(name in found for found in parts.values())]

    def cell(column: Column | None, measure: str) -> str:
        if column is None:
            return ""
        sampled, greedy = (column[how][measure].value for how in DECODING)
        return f"{number(sampled)} ({number(greedy)})"

    asked = {"one hop": F1_ONE_HOP.name, "two hops": F1_TWO_HOP.name}
    yield from rows(
        [
            ["run", *(f"{PARTS[name]}, {hops}" for name in names for hops in asked), "steps", "minutes"],
            *(
                [
                    output.name,
                    *(cell(found.get(name), measure) for name in names for measure in asked.values()),
                    " + ".join(str(len(read_metrics(RunFolder(output / name)))) for name in found if name != "sft"),
                    f"{_minutes(output):.1f}",
                ]
                for output, found in parts.items()
            ),
        ]
    )


def _minutes(output: Path) -> float:
    """Of both stages and the SFT, without a contrast run."""
    return sum(parse_json(read_text(output / "seconds.json", "the times of a demo")).values()) / 60


def everything(output: Path) -> Iterator[str]:
    """A row for each measure and decoding, a column for each part."""
    parts = columns(output)
    table = [[output.name, "", *(PARTS[name] for name in parts)]]
    for m in shown_in(View.DEMO):
        for how in DECODING:
            cells = [with_interval(column[how].get(m.name)) for column in parts.values()]
            table += [[m.heading if how == "sampled" else "", how, *cells]] if any(cells) else []
    yield from rows(table)


def main() -> None:
    outputs = [Path(argument) for argument in sys.argv[1:]]
    print(*summary(outputs), sep="\n")
    for output in outputs:
        print("", *everything(output), sep="\n")


if __name__ == "__main__":
    main()
