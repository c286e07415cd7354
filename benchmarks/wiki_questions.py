"""Splits question files that R1-Searcher's authors released into one half to train on and one half held out.

    python benchmarks/wiki_questions.py eval_set/hotpotqa_500.jsonl eval_set/2wiki_500.jsonl --to FOLDER --seed 7

The files have rows of `idx`, `question` and `answer`, and are in the authors' repository (RUCAIBox/R1-Searcher). FOLDER
gets train.jsonl and held.jsonl, each with half of every file, for docs/wiki.md.
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    train: list[dict[str, Any]] = []
    held: list[dict[str, Any]] = []
    for file in arguments.files:
        rows = [row_of(json.loads(line), file) for line in file.read_text("utf-8").splitlines()]
        draw.shuffle(rows)
        held += rows[: len(rows) // 2]
        train += rows[len(rows) // 2 :]
    arguments.to.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train), ("held", held)):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (arguments.to / f"{name}.jsonl").write_text("".join(lines), "utf-8")
        print(f"{len(rows)} questions in {arguments.to / name}.jsonl")


def row_of(row: dict[str, Any], file: Path) -> dict[str, Any]:
    answers = row["answer"] if isinstance(row["answer"], list) else [row["answer"]]
    return {"id": f"{file.stem}-{row['idx']}", "question": row["question"], "golden_answers": answers}


if __name__ == "__main__":
    main()
