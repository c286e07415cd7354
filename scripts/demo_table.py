"""The results of several runs of `r1s demo` as the Markdown tables of docs/demo.md.

    python scripts/demo_table.py runs/demo-11 runs/demo-12 …

First F1 of all runs, then everything of each. Means over the held-out questions, sampled at temperature 1 and greedy,
with 95 % intervals (bootstrap over questions).
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from generate_docs import table

from r1searcher.common.files import parse_json, read_text
from r1searcher.demo.results import PARTS
from r1searcher.report.intervals import Interval
from r1searcher.rewards.measures import F1_ONE_HOP, F1_TWO_HOP, View, shown_in
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import read_metrics
from r1searcher.stages.held_out import DECODING, finished_evaluation, held_out_intervals

Parts = dict[str, dict[str, dict[str, Interval]]]
"""Part -> decoding -> measure -> mean and interval, of a demo's finished parts."""


def parts_of(output: Path) -> Parts:
    runs = {name: RunFolder(output / name) for name in PARTS}
    return {name: held_out_intervals(run) for name, run in runs.items() if finished_evaluation(run)}


def number(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")


def with_interval(found: Interval | None) -> str:
    return f"{number(found.value)} [{number(found.low)}, {number(found.high)}]" if found else ""


def summary(demos: Mapping[Path, Parts]) -> str:
    """F1 by number of hops: a row per demo, sampled with greedy in brackets."""
    names = [name for name in PARTS if any(name in parts for parts in demos.values())]
    asked = {"one hop": F1_ONE_HOP.name, "two hops": F1_TWO_HOP.name}
    rows = []
    for output, parts in demos.items():
        cells = []
        for name in names:
            for measure in asked.values():
                means = [number(found[measure].value) for found in parts[name].values()] if name in parts else []
                cells.append("{} ({})".format(*means) if means else "")
        steps = " + ".join(str(len(read_metrics(RunFolder(output / name)))) for name in parts if name != "sft")
        # Of the SFT and both stages; a contrast run has a file of its own.
        seconds = parse_json(read_text(output / "seconds.json", "the times of a demo"))
        rows.append([output.name, *cells, steps, f"{sum(seconds.values()) / 60:.1f}"])
    return table(["run", *(f"{PARTS[name]}, {hops}" for name in names for hops in asked), "steps", "minutes"], rows)


def everything(output: Path, parts: Parts) -> str:
    """A row for each measure and decoding, a column for each part."""
    rows = []
    for m in shown_in(View.DEMO):
        for how in DECODING:
            cells = [with_interval(part[how].get(m.name)) for part in parts.values()]
            if any(cells):
                rows.append([m.heading if how == "sampled" else "", how, *cells])
    return table([output.name, "", *(PARTS[name] for name in parts)], rows)


def main() -> None:
    demos = {output: parts_of(output) for output in map(Path, sys.argv[1:])}
    print("\n".join([summary(demos), *(everything(output, parts) for output, parts in demos.items())]), end="")


if __name__ == "__main__":
    main()
