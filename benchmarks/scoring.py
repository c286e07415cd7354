"""Scoring speed: our metrics compared with a line-by-line port of the reference formulas, and trajectories per second.

    python benchmarks/scoring.py PREDICTIONS.jsonl [--trajectories 100000]

PREDICTIONS are rows that `r1s score` reads. Both scorers get the same answers in the same process, alternating; the
table shows the best of five rounds of each. The second part writes a file of that many trajectories and scores it
like `r1s score`.
"""

import argparse
import itertools
import os
import re
import string
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from r1searcher.evaluation.predictions import prediction_lines, read_predictions
from r1searcher.evaluation.scoring import score_file
from r1searcher.report.predictions import Prediction
from r1searcher.report.scoring import summarize
from r1searcher.rewards.metrics import score

Four = tuple[float, float, float, float]


def normalized(text: str) -> str:
    """The reference's steps in sequence, everything built where it is used."""

    def boolean(text: str) -> str:
        return {"True": "yes", "False": "no"}.get(text, text)

    def underscores(text: str) -> str:
        return text.replace("_", " ")

    def lower(text: str) -> str:
        return text.lower()

    def punctuation(text: str) -> str:
        exclude = set(string.punctuation + "".join(["‘", "’", "´", "`"]))
        return "".join(character if character not in exclude else " " for character in text)

    def articles(text: str) -> str:
        return re.sub(r"\b(a|an|the)\b", " ", text)

    def spaces(text: str) -> str:
        return " ".join(text.split())

    return spaces(articles(punctuation(lower(underscores(boolean(text)))))).strip()


def reference_em(answer: str, gold: str) -> float:
    return float(normalized(answer) == normalized(gold))


def reference_f1(answer: str, gold: str) -> float:
    a, g = normalized(answer), normalized(gold)
    if a in ("yes", "no", "noanswer") and a != g:
        return 0.0
    if g in ("yes", "no", "noanswer") and a != g:
        return 0.0
    common = sum((Counter(a.split()) & Counter(g.split())).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(a.split()), common / len(g.split())
    return 2 * precision * recall / (precision + recall)


def reference_cover_em(answer: str, gold: str) -> float:
    words = normalized(answer).split(" ")
    return float(all(word in words for word in normalized(gold).split(" ")))


def reference_contiguous(answer: str, gold: str) -> float:
    return float(normalized(gold) in normalized(answer))


def reference(answer: str, gold_answers: Sequence[str]) -> Four:
    return (
        max(reference_em(answer, gold) for gold in gold_answers),
        max(reference_f1(answer, gold) for gold in gold_answers),
        max(reference_cover_em(answer, gold) for gold in gold_answers),
        max(reference_contiguous(answer, gold) for gold in gold_answers),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("--trajectories", type=int, default=100_000)
    arguments = parser.parse_args()
    predictions = list(read_predictions(arguments.predictions))
    pairs = [(p.answer or "", p.gold_answers) for p in predictions]
    wrong = sum(any(abs(x - y) > 1e-12 for x, y in zip(score(*pair), reference(*pair), strict=True)) for pair in pairs)
    ours, theirs = best_of_turns(lambda: [score(*pair) for pair in pairs], lambda: [reference(*pair) for pair in pairs])
    table = Table(title=f"{len(pairs)} answers, best of 5 alternating rounds")
    for heading in ("scorer", "µs per answer", "ratio"):
        table.add_column(heading, justify="right")
    table.add_row("reference, line by line", f"{theirs / len(pairs) * 1e6:.1f}", "1")
    table.add_row("r1searcher", f"{ours / len(pairs) * 1e6:.1f}", f"{theirs / ours:.1f}x")
    console = Console()
    console.print(table)
    console.print(f"answers on which the two differ: {wrong}")
    whole_file(arguments.predictions, predictions, arguments.trajectories, console)


def best_of_turns(*work: Callable[[], object]) -> list[float]:
    """CPU seconds of each piece of work, the best of five alternating rounds."""
    best = [float("inf")] * len(work)
    for _ in range(5):
        for place, piece in enumerate(work):
            started = time.process_time()
            piece()
            best[place] = min(best[place], time.process_time() - started)
    return best


def whole_file(source: Path, predictions: Sequence[Prediction], count: int, console: Console) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trajectories.jsonl"
        lines = [line + "\n" for _, line in prediction_lines(source)]
        with file.open("w", encoding="utf-8") as out:
            out.writelines(itertools.islice(itertools.cycle(lines), count))
        size = file.stat().st_size / 1e6
        started, cpu = time.perf_counter(), os.times()
        figures = summarize(score_file(file, os.cpu_count() or 1))
        seconds, after = time.perf_counter() - started, os.times()
        used = sum(after[:4]) - sum(cpu[:4])
        assert figures.predictions == count
        console.print(
            f"{count:,} trajectories ({size:.0f} MB) read, scored and summarized in {seconds:.1f} s, "
            f"{used:.1f} s of CPU on {os.cpu_count()} cores"
        )


if __name__ == "__main__":
    main()
