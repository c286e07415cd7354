"""Time per training step of our executor, compared with OpenRLHF's stock multi-turn executor in the same environment.

    python -m benchmarks.executor_overhead [--pairs 60]

One run of the whole engine on the tests' toy world, in which both executors alternate step by step: same process,
model, index, documents, stops and limits, and a learning rate so small that the policy does not change. (In separate
runs, minutes apart, the ratio varied from .61 to 1.21.) Prints seconds per step (median), of which rollouts, tokens per
sample, and the ratio with its 95 % bootstrap interval; the first steps of both are excluded.
"""

import argparse
import random
import statistics
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from r1searcher.common.files import read_rows
from r1searcher.config.settings import load
from r1searcher.engine.launch import prepare_rl
from r1searcher.engine.process import run_engine
from r1searcher.runs.folder import RunFolder
from r1searcher.stages.prepare import prepare_stage
from tests.engine.toy import World, make_world

EXECUTORS = Path(__file__).with_name("alternating_agent.py")
WARM_UP = 4
Row = dict[str, float]


def measure(world: World, pairs: int) -> list[tuple[Row, Row]]:
    """The metric rows of both, one step of each at a time."""
    overrides = {
        "name": "overhead",
        "model.path": str(world.folder_of("sft").model),
        "rl.steps": 2 * pairs + WARM_UP,
        "rl.learning_rate": 1e-12,
        "checkpoint.every": 1000,
    }
    settings = load("stage1", world.settings, overrides=overrides)
    run = RunFolder(Path(settings.output) / "overhead")
    prepare_stage("stage1", settings, run)
    prepare_rl(settings, run, Path(settings.model.path), EXECUTORS)
    run_engine(run)
    rows = list(read_rows(run.metrics))[WARM_UP:]
    return list(zip(rows[::2], rows[1::2], strict=True))


def ratio(steps: Iterable[tuple[Row, Row]]) -> float:
    """Ratio of the medians; each entry is a step of the stock executor and the following step of ours."""
    stock, ours = (statistics.median(row["timing/step_total"] for row in rows) for rows in zip(*steps, strict=True))
    return ours / stock


def interval(steps: Sequence[tuple[Row, Row]], draws: int = 2000) -> tuple[float, float]:
    """Adjacent steps are drawn together, since the machine's speed drifts."""
    rng = random.Random(0)
    ratios = sorted(ratio(rng.choices(steps, k=len(steps))) for _ in range(draws))
    return ratios[draws // 40], ratios[-draws // 40]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pairs", type=int, default=60)
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder))
        world.run("sft", str(world.settings), "--name", "sft")
        steps = measure(world, asked.pairs)
    table = Table("executor", "steps", "s per step", "s rollouts", "tokens per sample", "searches")
    for name, of_name in zip(("stock", "ours"), zip(*steps, strict=True), strict=True):
        table.add_row(
            name,
            str(len(of_name)),
            f"{statistics.median(row['timing/step_total'] for row in of_name):.3f}",
            f"{statistics.median(row['timing/generation'] for row in of_name):.3f}",
            f"{statistics.mean(row['total_length'] for row in of_name):.1f}",
            f"{statistics.mean(row['searches'] for row in of_name):.2f}",
        )
    Console().print(table)
    low, high = interval(steps)
    print(f"ours / stock, seconds per step: {ratio(steps):.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
