"""`report.html`: one file with tables, plots and every trajectory.

The page loads nothing from outside and works from `file://`. Text of models and passages is compressed in data blocks
(`packed`) and becomes text nodes; a content security policy allows only this page's own script, by its hash.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from r1searcher.report.contents import Records, Report, Row
from r1searcher.report.figures import curves, every_curve, interval_plot, legend, searches_plot
from r1searcher.report.packed import CHUNK, SHARED, pack, pack_trajectories
from r1searcher.report.predictions import Prediction
from r1searcher.report.scoring import MetricSummary, Scored
from r1searcher.report.tables import counts, metrics_of, name_of, step_cells
from r1searcher.rewards.measures import COVER_EM, EM, F1, REWARD, View, shown_in


def render_page(report: Report) -> str:
    """The complete page."""
    records = report.records
    rows = zip(records.trajectories, report.predictions, report.scored, strict=True)
    trajectories = [_entry(records, row, prediction, scored) for row, prediction, scored in rows]
    packed = pack_trajectories(records.trajectories)
    script, style = _file("page.js"), _file("page.css")
    return _filled(
        _file("page.html"),
        {
            "policy": escape(
                f"default-src 'none'; base-uri 'none'; form-action 'none'; "
                f"script-src '{_hash(script)}'; style-src '{_hash(style)}'"
            ),
            "title": escape(records.title),
            "style": style,
            "script": script,
            "notes": "".join(f"<li>{escape(note)}</li>" for note in records.notes),
            "tables": _table(report.summaries) + "".join(_steps(name, rows) for name, rows in records.curves.items()),
            "plots": legend(records.curves)
            + curves(records.curves)
            + interval_plot(report.summaries)
            + searches_plot(trajectories)
            + every_curve(records.curves),
            "manifest": escape(json.dumps(records.manifest, indent=2, ensure_ascii=False)),
            "group": records.grouped_by,
            "data": pack(trajectories),
            "chunk_size": str(CHUNK),
            "shared_size": str(SHARED),
            "blocks": _blocks("chunk", packed.chunks) + _blocks("shared", packed.shared),
        },
    )


def _blocks(kind: str, blocks: Sequence[str]) -> str:
    return "".join(f'<script type="text/plain" class="{kind}">{block}</script>\n' for block in blocks)


def _file(name: str) -> str:
    return (resources.files("r1searcher.report") / "page_files" / name).read_text("utf-8").rstrip("\n")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _filled(template: str, values: Mapping[str, str]) -> str:
    """The template with its {{names}} replaced, each once: inserted text is never scanned again."""
    pieces = [piece.split("}}", 1) for piece in template.split("{{")]
    return pieces[0][0] + "".join(values[name] + rest for name, rest in pieces[1:])


def _entry(records: Records, row: Row, prediction: Prediction, scored: Scored) -> dict[str, Any]:
    """The fields of a trajectory that the page's script reads, without its segments. `earned` is the reward, if any."""
    measures = scored.measures
    verdict = "right" if measures[EM.name] else "covered" if measures[COVER_EM.name] else "wrong"
    return {
        "group": records.group_of(row),
        "samples": records.samples_of(row),
        "earned": round(float(row[REWARD.name]), 3) if isinstance(row.get(REWARD.name), (int, float)) else None,
        "question": prediction.question,
        "gold_answers": list(prediction.gold_answers),
        "answer": prediction.answer,
        "verdict": verdict,
        "f1": round(measures[F1.name], 3),
        "searches": len(row["searches"]),
        "stop": row["stop"],
        "measures": {m.name: round(measures[m.name], 3) for m in shown_in(View.PAGE) if m.name in measures},
        "parts": {name: round(float(value), 3) for name, value in dict(row.get("parts", {})).items()},
        "broken": [name.removeprefix("format/") for name in measures if name.startswith("format/")],
    }


def _table(summaries: Mapping[str, MetricSummary]) -> str:
    head = "".join(f"<th>{escape(name)}<br>n = {summary.n}</th>" for name, summary in summaries.items())
    body = ""
    for metric in metrics_of(summaries):
        cells = "".join(f"<td>{summary.metrics.get(metric) or ''}</td>" for summary in summaries.values())
        body += f"<tr><td>{escape(name_of(metric))}</td>{cells}</tr>"
    warnings = "".join(f"<li>{escape(f'{name}: {line}')}</li>" for name, r in summaries.items() for line in counts(r))
    return f"<table><tr><th></th>{head}</tr>{body}</table><ul>{warnings}</ul>"


def _steps(run: str, metrics: Sequence[Mapping[str, float]]) -> str:
    """The metrics of every step of a run, collapsed; nothing for an evaluation."""
    if not metrics:
        return ""
    headings, rows = step_cells(metrics)
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    named = f"Every step of {escape(run)}" if run else "Every step"
    return f"<details><summary>{named}</summary><table><tr>{head}</tr>{body}</table></details>"
