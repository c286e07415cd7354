"""The report of an evaluation: report.json, report.md and report.html."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from r1searcher.common.files import write_bytes, write_json
from r1searcher.evaluation.predictions import of_row
from r1searcher.report.scoring import MetricSummary, score_prediction, summarize


def write_reports(to: Path, rows: Sequence[Mapping[str, Any]], manifest: Mapping[str, Any]) -> dict[str, MetricSummary]:
    """report.json, report.md and report.html of prediction rows, in their order."""
    from r1searcher.report.page import render_page
    from r1searcher.report.tables import as_markdown

    predictions = [of_row(row, str(number)) for number, row in enumerate(rows)]
    scored = [score_prediction(prediction) for prediction in predictions]
    reports = {
        name: replace(
            summarize([one for row, one in zip(rows, scored, strict=True) if row["dataset"] == name]),
            seconds=_latency([float(row["seconds"]) for row in rows if row["dataset"] == name]),
        )
        for name in dict.fromkeys(str(row["dataset"]) for row in rows)
    }
    write_json(
        to / "report.json",
        {"manifest": manifest, "datasets": {name: figures.as_json() for name, figures in reports.items()}},
    )
    write_bytes(to / "report.md", as_markdown(reports, manifest).encode("utf-8", "replace"))
    page = render_page(reports, rows, predictions, scored, manifest)
    write_bytes(to / "report.html", page.encode("utf-8", "replace"))
    return reports


def _latency(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile of an episode's seconds, while other episodes ran."""
    ordered = sorted(seconds)
    return {"p50": ordered[len(ordered) // 2], "p95": ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]}
