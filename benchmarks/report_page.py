"""How long headless Chromium takes to open a report of 1,000 trajectories from `file://` until it is readable.

    python -m benchmarks.report_page PREDICTIONS.jsonl [--trajectories 1000]

PREDICTIONS are rows with trajectories that `r1s score` reads, repeated until there are enough. Each
opening uses a new browser.
"""

import argparse
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from r1searcher.evaluation.predictions import read_predictions
from r1searcher.evaluation.reports import records_of
from r1searcher.report.contents import report_of
from r1searcher.report.page import render_page
from r1searcher.runs.records import to_row
from tests.report.browser import headless

TIMES = """
const [page] = performance.getEntriesByType("navigation");
const listed = document.querySelectorAll("#list button").length;
return [listed, Number(document.documentElement.dataset.ready), page.loadEventEnd];
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("--trajectories", type=int, default=1_000)
    arguments = parser.parse_args()
    trajectories = [p.trajectory for p in read_predictions(arguments.predictions) if p.trajectory is not None]
    rows = [
        to_row(trajectories[number % len(trajectories)], index=number, dataset="d")
        for number in range(arguments.trajectories)
    ]
    page = render_page(report_of(records_of({"model": arguments.predictions.name}, rows)))
    table = Table(title=f"{len(rows)} trajectories, {len(page) / 1e6:.1f} MB")
    for heading in ("opening", "listed", "ready, ms", "loaded, ms"):
        table.add_column(heading, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.html"
        file.write_text(page, encoding="utf-8")
        for number in range(1, 6):
            with headless(Path(folder) / f"profile{number}") as browser:
                browser.open(file)
                table.add_row(str(number), *(f"{value:.0f}" for value in browser.run(TIMES)))
    Console().print(table)


if __name__ == "__main__":
    main()
