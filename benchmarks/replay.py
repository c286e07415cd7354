"""Scores existing trajectories with every recipe: how many have a broken format, and how rewards differ from `paper`.

python benchmarks/replay.py FILE.jsonl ...
"""

import sys
from pathlib import Path
from statistics import fmean

from rich.table import Table

from r1searcher.common.terminal import console
from r1searcher.evaluation.predictions import read_predictions
from r1searcher.rewards.recipes import RECIPES, recipe_parts, reward_function


def main() -> None:
    table = Table()
    for heading in ("file", "recipe", "mean reward", "format broken", "differs from paper", "lower", "higher"):
        table.add_column(heading, justify="right")
    for file in map(Path, sys.argv[1:]):
        trajectories = [p.trajectory for p in read_predictions(file) if p.trajectory]
        paper = {stage: reward_function(recipe_parts("paper", stage)) for stage in ("stage1", "stage2")}
        for recipe, stages in RECIPES.items():
            for stage in stages:
                reward = reward_function(recipe_parts(recipe, stage))
                earned = [reward(trajectory) for trajectory in trajectories]
                gaps = [e.total - paper[stage](t).total for e, t in zip(earned, trajectories, strict=True)]
                table.add_row(
                    file.stem,
                    f"{recipe}, {stage}",
                    f"{fmean(e.total for e in earned):.3f}",
                    str(sum(any("format" in k and v < 0 for k, v in e.parts.items()) for e in earned)),
                    str(sum(abs(gap) > 1e-9 for gap in gaps)),
                    str(sum(gap < -1e-9 for gap in gaps)),
                    str(sum(gap > 1e-9 for gap in gaps)),
                )
    console(width=130).print(table)


if __name__ == "__main__":
    main()
