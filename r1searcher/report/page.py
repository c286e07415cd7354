"""`report.html`: one file with tables, plots and every trajectory to read.

The page loads nothing from outside and works from `file://`. What models and passages wrote reaches it as JSON in a
data block with every `<` escaped, and becomes text nodes; a content security policy lets this page's own script run,
known by its hash, and nothing else.
"""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from r1searcher.report.scoring import MetricSummary, Prediction, Scored
from r1searcher.report.tables import counts, metrics_of, name_of
from r1searcher.rewards.measures import COVER_EM, EM, F1, View, shown_in


def render_page(
    reports: Mapping[str, MetricSummary],
    rows: Sequence[Mapping[str, Any]],
    predictions: Sequence[Prediction],
    scored: Sequence[Scored],
    manifest: Mapping[str, Any],
) -> str:
    """The whole page. `rows`, `predictions` and `scored` run in parallel."""
    trajectories = [_entry(*one) for one in zip(rows, predictions, scored, strict=True)]
    script, style = _file("page.js"), _file("page.css")
    return _filled(
        _file("page.html"),
        {
            "policy": escape(
                f"default-src 'none'; base-uri 'none'; form-action 'none'; "
                f"script-src '{_hash(script)}'; style-src '{_hash(style)}'"
            ),
            "title": escape(str(manifest["model"])),
            "style": style,
            "script": script,
            "tables": _table(reports),
            "plots": _interval_plot(reports) + _searches_plot(trajectories),
            "manifest": escape(json.dumps(manifest, indent=2, ensure_ascii=False)),
            "data": _data(trajectories),
        },
    )


def _file(name: str) -> str:
    return (resources.files("r1searcher.report") / "page_files" / name).read_text("utf-8").rstrip("\n")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _filled(template: str, values: Mapping[str, str]) -> str:
    """The template with its {{names}} replaced, each once: what is filled in is never looked at again."""
    pieces = [piece.split("}}", 1) for piece in template.split("{{")]
    return pieces[0][0] + "".join(values[name] + rest for name, rest in pieces[1:])


def _data(value: Any) -> str:
    """JSON that can't end its script element or start a comment in it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _entry(row: Mapping[str, Any], prediction: Prediction, scored: Scored) -> dict[str, Any]:
    measures = scored.measures
    trajectory = prediction.trajectory
    verdict = "right" if measures[EM.name] else "covered" if measures[COVER_EM.name] else "wrong"
    return {
        "dataset": str(row.get("dataset", "")),
        "question": prediction.question,
        "gold_answers": list(prediction.gold_answers),
        "answer": prediction.answer,
        "verdict": verdict,
        "f1": round(measures[F1.name], 3),
        "searches": len(trajectory.searches) if trajectory else 0,
        "stop": trajectory.stop.value if trajectory else "unknown",
        "measures": {m.name: round(measures[m.name], 3) for m in shown_in(View.PAGE) if m.name in measures},
        "parts": {name: round(float(value), 3) for name, value in dict(row.get("parts", {})).items()},
        "broken": [name.removeprefix("format/") for name in measures if name.startswith("format/")],
        "segments": [[segment.author.value, segment.text, len(segment.token_ids)] for segment in trajectory.segments]
        if trajectory
        else [],
    }


def _table(reports: Mapping[str, MetricSummary]) -> str:
    head = "".join(f"<th>{escape(name)}<br>n = {figures.n}</th>" for name, figures in reports.items())
    body = ""
    for metric in metrics_of(reports):
        cells = ""
        for figures in reports.values():
            found = figures.metrics.get(metric)
            cells += f"<td>{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]</td>" if found else "<td></td>"
        body += f"<tr><td>{escape(name_of(metric))}</td>{cells}</tr>"
    warnings = "".join(f"<li>{escape(f'{name}: {line}')}</li>" for name, r in reports.items() for line in counts(r))
    return f"<table><tr><th></th>{head}</tr>{body}</table><ul>{warnings}</ul>"


def _interval_plot(reports: Mapping[str, MetricSummary]) -> str:
    """Answer metrics on a scale of 0 to 1, each a dot with a whisker."""
    metrics = [m.name for m in shown_in(View.INTERVAL)]
    lines, y = "", 14
    for name, figures in reports.items():
        for metric in metrics:
            if not (found := figures.metrics.get(metric)):
                continue
            low, value, high = (190 + 300 * x for x in (found.low, found.value, found.high))
            label = escape(name_of(metric) if len(reports) == 1 else f"{name}: {name_of(metric)}")
            lines += (
                f'<text x="184" y="{y + 4}" text-anchor="end">{label}</text>'
                f'<line class="axis" x1="190" x2="490" y1="{y}" y2="{y}"/>'
                f'<line class="whisker" x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>'
                f'<circle class="right" cx="{value:.1f}" cy="{y}" r="4"/>'
            )
            y += 18
    ticks = "".join(
        f'<text x="{190 + 300 * t / 4:.0f}" y="{y + 6}" text-anchor="middle">{t / 4:g}</text>' for t in range(5)
    )
    return (
        f'<figure><svg width="510" height="{y + 12}" role="img" aria-label="Answer metrics">{lines}{ticks}</svg>'
        "<figcaption>Answer metrics with 95 % intervals</figcaption></figure>"
    )


def _searches_plot(trajectories: Sequence[Mapping[str, Any]]) -> str:
    """How many trajectories searched how often, the right ones below the others."""
    totals = Counter(min(int(t["searches"]), 10) for t in trajectories)
    right = Counter(min(int(t["searches"]), 10) for t in trajectories if t["verdict"] == "right")
    highest = max(totals.values(), default=1)
    bars = ""
    for searches in range(max(totals, default=0) + 1):
        x = 10 + 34 * searches
        good, all_ = (110 * n / highest for n in (right[searches], totals[searches]))
        label = f"{searches}" if searches < 10 else "10+"
        bars += (
            f'<rect class="right" x="{x}" y="{130 - good:.1f}" width="26" height="{good:.1f}"/>'
            f'<rect class="wrong" x="{x}" y="{130 - all_:.1f}" width="26" height="{all_ - good:.1f}"/>'
            f'<text x="{x + 13}" y="{126 - all_:.1f}" text-anchor="middle">{totals[searches]}</text>'
            f'<text x="{x + 13}" y="144" text-anchor="middle">{label}</text>'
        )
    width = 20 + 34 * (max(totals, default=0) + 1)
    return (
        f'<figure><svg width="{width}" height="150" role="img" aria-label="Searches per question">{bars}</svg>'
        "<figcaption>Searches per question: right (EM, green) and not (red)</figcaption></figure>"
    )
