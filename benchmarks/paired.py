"""Compares the speed of two trees of this repository.

    python benchmarks/paired.py --old TREE --new TREE [--pairs 10] [--only build query]

Measures `r1s --help`, and what `benchmarks/workloads.py` does. Each measurement is a separate process; the trees
alternate (old new, new old, ...), so that drift in the machine's speed affects both. The table shows the median of the
pairs' ratios new / old, for CPU seconds and wall time, with its 95 % bootstrap interval.

If names differ in an older tree, `--old-workloads FILE` is a copy of `workloads.py` with that tree's names.
Run it with a Python that has the training packages; without them, exclude `episodes` with `--only`.
"""

import argparse
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from corpus import queries, write_corpus
from rich.console import Console
from rich.table import Table

WORKLOADS = Path(__file__).with_name("workloads.py")
NAMES = ("help", "build", "query", "score", "episodes")
PASSAGES = 20_000
PREDICTIONS = 2_000
DRAWS = 2_000
Seconds = dict[str, float]


@dataclass(frozen=True)
class Tree:
    path: Path
    workloads: Path
    folder: Path
    """Files that its workloads keep between runs."""

    def measure(self, name: str, inputs: Path) -> Seconds:
        """Seconds of one run, by clock ("cpu" and "wall")."""
        if name == "help":
            return self._help()
        command = [sys.executable, "-P", str(self.workloads), name, str(inputs), str(self.folder)]
        done = self._run(command)
        return dict(json.loads(done.splitlines()[-1]))

    def _help(self) -> Seconds:
        """`r1s --help` from the start of its process to its end."""
        project = tomllib.loads((self.path / "pyproject.toml").read_text("utf-8"))["project"]
        module, _, function = project["scripts"]["r1s"].partition(":")
        command = [sys.executable, "-P", "-c", f"from {module} import {function}; {function}()", "--help"]
        wall, before = time.perf_counter(), os.times()
        self._run(command)
        after = os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        return {"wall": time.perf_counter() - wall, "cpu": cpu}

    def _run(self, command: Sequence[str]) -> str:
        environment = {**os.environ, "PYTHONPATH": str(self.path), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=self.folder, check=False)
        if done.returncode:
            sys.exit(f"{self.path}: {' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
        return done.stdout


def write_inputs(folder: Path, predictions: Sequence[Path]) -> None:
    """The same inputs for both trees."""
    write_corpus(folder / "corpus.jsonl", PASSAGES)
    (folder / "queries.txt").write_text("\n".join(queries("questions")) + "\n", encoding="utf-8")
    lines = [line for file in predictions for line in file.read_text("utf-8").splitlines()]
    chosen = itertools.islice(itertools.cycle(lines), PREDICTIONS)
    (folder / "predictions.jsonl").write_text("\n".join(chosen) + "\n", encoding="utf-8")


def paired(old: Tree, new: Tree, name: str, inputs: Path, pairs: int) -> Iterator[tuple[Seconds, Seconds]]:
    """(old, new) of each pair, after one warm-up run of each."""
    for tree in (old, new):
        tree.measure(name, inputs)
    for number in range(pairs):
        order = (old, new) if number % 2 == 0 else (new, old)
        seconds = {id(tree): tree.measure(name, inputs) for tree in order}
        yield seconds[id(old)], seconds[id(new)]


def median_with_interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """The median, and the bounds of its 95 % bootstrap interval over the pairs."""
    rng = random.Random(0)
    medians = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(DRAWS))
    return statistics.median(ratios), medians[DRAWS // 40], medians[-DRAWS // 40]


def row(name: str, measured: Sequence[tuple[Seconds, Seconds]]) -> list[str]:
    cells = [name, str(len(measured))]
    for clock in ("cpu", "wall"):
        old, new = (statistics.median(side[clock] for side in sides) for sides in zip(*measured, strict=True))
        middle, low, high = median_with_interval([pair[1][clock] / pair[0][clock] for pair in measured])
        cells += [f"{old:.3f}", f"{new:.3f}", f"{middle:.3f} ({low:.3f} to {high:.3f})"]
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, required=True)
    parser.add_argument("--new", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--old-workloads", type=Path, default=WORKLOADS)
    asked = parser.parse_args()
    table = Table(
        "work", "pairs", *(f"{clock}: {what}" for clock in ("cpu", "wall") for what in ("old s", "new s", "new / old"))
    )
    released = asked.new.resolve() / "tests" / "data" / "r1-searcher" / "eval_results"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_inputs(folder, sorted(released.glob("*.jsonl")))
        old = Tree(asked.old.resolve(), asked.old_workloads.resolve(), folder / "old")
        new = Tree(asked.new.resolve(), WORKLOADS, folder / "new")
        old.folder.mkdir()
        new.folder.mkdir()
        if "query" in asked.only and "build" not in asked.only:
            for tree in (old, new):
                tree.measure("build", folder)
        for name in (name for name in NAMES if name in asked.only):  # build makes what query reads
            table.add_row(*row(name, list(paired(old, new, name, folder, asked.pairs))))
            print(f"{name}: done", file=sys.stderr)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
