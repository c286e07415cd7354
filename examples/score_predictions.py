"""Score predictions: metrics per answer, and means with 95 % confidence intervals.

    python examples/score_predictions.py

From a shell, for one or more JSONL files: `r1s score predictions.jsonl`.
"""

import json
import tempfile
from pathlib import Path

from r1searcher.evaluation.scoring import score_file
from r1searcher.report.scoring import summarize

ROWS = [
    {"id": "1", "question": "Who directed Silver Harbor?", "golden_answers": ["Ada Quill"], "prediction": "ada quill."},
    {"id": "2", "question": "Where was she born?", "golden_answers": ["Foxford"], "prediction": "the town of Foxford"},
    {
        "id": "3",
        "question": "Which river flows there?",
        "golden_answers": ["Moy", "River Moy"],
        "prediction": "Shannon",
    },
]


def main(file: Path) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")

    scored = score_file(file)
    for one in scored:
        print(f"{one.question:28} EM {one.measures['em']:.0f}  F1 {one.measures['f1']:.2f}")

    print()
    for name, interval in summarize(scored).metrics.items():
        print(f"{name:20} {interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary) / "predictions.jsonl")
