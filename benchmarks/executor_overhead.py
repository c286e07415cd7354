"""What our executor costs a training step, against OpenRLHF's stock multi-turn executor on the same environment.

    python -m benchmarks.executor_overhead [--steps 12] [--rounds 2]

Whole engine runs of both in turn, on the tests' toy world: same warmed-up model, questions, index, documents, stops and
budgets, and a learning rate so small that the policy stays what it is. Prints seconds a step (median), of it the
rollouts, tokens a sample, and the ratio; the first step of a run, which warms caches up, is left out.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from r1searcher.config.settings import load
from r1searcher.engine.launch import prepare_rl, run_engine
from r1searcher.runs.folder import RunFolder, read_rows
from r1searcher.stages.prepare import prepare_stage
from tests.engine.toy import World, make_world

STOCK = Path(__file__).with_name("stock_agent.py")


def measure(world: World, name: str, executor: Path | None, steps: int) -> list[dict[str, float]]:
    """The metric rows of one run of stage 1, the first one left out."""
    overrides = {
        "name": f'"{name}"',
        "model.path": f'"{world.folder_of("warmup").model}"',
        "rl.steps": str(steps),
        "rl.learning_rate": "1e-12",
        "checkpoint.every": "1000",
    }
    settings = load("stage1", world.settings, overrides=overrides)
    run = RunFolder(Path(settings.output) / name)
    prepare_stage("stage1", settings, run)
    prepare_rl(settings, run, Path(settings.model.path), executor)
    run_engine(run)
    return list(read_rows(run.metrics))[1:]


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--steps", type=int, default=12)
    arguments.add_argument("--rounds", type=int, default=2)
    asked = arguments.parse_args()
    rows: dict[str, list[dict[str, float]]] = {"stock": [], "ours": []}
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder))
        world.run("sft", str(world.settings), "--name", "warmup")
        ratios = []
        for number in range(asked.rounds):
            for name, executor in (("stock", STOCK), ("ours", None)):
                print(f"round {number + 1}: {name}", file=sys.stderr)
                rows[name] += measure(world, f"{name}{number}", executor, asked.steps + 1)
            stock, ours = (statistics.median(row["timing/step_total"] for row in rows[n][-asked.steps :]) for n in rows)
            ratios.append(ours / stock)
    table = Table("executor", "steps", "s a step", "s rollouts", "tokens a sample", "searches")
    medians = {}
    for name, of_name in rows.items():
        medians[name] = statistics.median(row["timing/step_total"] for row in of_name)
        table.add_row(
            name,
            str(len(of_name)),
            f"{medians[name]:.3f}",
            f"{statistics.median(row['timing/generation'] for row in of_name):.3f}",
            f"{statistics.mean(row['total_length'] for row in of_name):.1f}",
            f"{statistics.mean(row['searches'] for row in of_name):.2f}",
        )
    Console().print(table)
    print(f"ours / stock, seconds a step: {medians['ours'] / medians['stock']:.3f}")
    print(f"round by round, which shows the machine's own swings: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")


if __name__ == "__main__":
    main()
