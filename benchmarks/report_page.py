"""How long headless Chromium takes to open a large report from `file://` until it is readable, and to filter it once.

    python -m benchmarks.report_page PREDICTIONS.jsonl [--trajectories 1000] [--tokens 8000]

PREDICTIONS are rows with trajectories that `r1s score` reads, repeated until there are enough. With --tokens each
trajectory gets further segments of random ones, every one with a number that makes it different, until it has as many
tokens. Each opening uses a new browser.
"""

import argparse
import random
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from r1searcher.episodes.trajectory import Author, Segment, Trajectory
from r1searcher.evaluation.predictions import read_predictions
from r1searcher.evaluation.reports import records_of
from r1searcher.report.contents import report_of
from r1searcher.report.page import render_page
from r1searcher.runs.records import to_row
from tests.report.browser import headless

TIMES = """
const [page] = performance.getEntriesByType("navigation");
const listed = Number(document.getElementById("count").textContent.split(" ")[0]);
return [listed, Number(document.documentElement.dataset.ready), page.loadEventEnd];
"""
FILTER = """
const started = performance.now();
const select = document.getElementById("right");
select.value = "right";
select.dispatchEvent(new Event("change"));
return new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(performance.now() - started))));
"""


def lengthened(trajectory: Trajectory, pool: Sequence[Segment], tokens: int, rng: random.Random) -> Trajectory:
    """The trajectory with segments of `pool`, each different by a number, before its last one."""
    more: list[Segment] = []
    have = len(trajectory.token_ids)
    while have < tokens:
        segment = rng.choice(pool)
        more.append(replace(segment, text=f"{rng.random()} {segment.text}"))
        have += len(segment.token_ids)
    return replace(trajectory, segments=(*trajectory.segments[:-1], *more, trajectory.segments[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("--trajectories", type=int, default=1_000)
    parser.add_argument("--tokens", type=int, default=0)
    arguments = parser.parse_args()
    trajectories = [p.trajectory for p in read_predictions(arguments.predictions) if p.trajectory is not None]
    pool = [s for t in trajectories for s in t.segments if s.author is not Author.PROMPT and s.token_ids]
    rng = random.Random(7)
    rows = [
        to_row(
            lengthened(trajectories[number % len(trajectories)], pool, arguments.tokens, rng), index=number, dataset="d"
        )
        for number in range(arguments.trajectories)
    ]
    page = render_page(report_of(records_of({"model": arguments.predictions.name}, rows)))
    table = Table(title=f"{len(rows)} trajectories, {len(page) / 1e6:.1f} MB")
    for heading in ("opening", "listed", "ready, ms", "loaded, ms", "filter, ms"):
        table.add_column(heading, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.html"
        file.write_text(page, encoding="utf-8")
        for number in range(1, 6):
            with headless(Path(folder) / f"profile{number}") as browser:
                browser.open(file)
                table.add_row(str(number), *(f"{value:.0f}" for value in (*browser.run(TIMES), browser.run(FILTER))))
    Console().print(table)


if __name__ == "__main__":
    main()
