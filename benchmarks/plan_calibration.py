"""How well a plan predicts the memory of a third model from two measured ones (see tests/planning/calibration.py).

    python benchmarks/plan_calibration.py

Trains the models and prints a table.
"""

import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.planning.calibration import calibrate, predicted

MIB = 2**20


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        empty, models, found = calibrate(Path(folder))
    table = Table(
        "hidden x layers", "million parameters", "states", "activations, logits", "growth", "plan", "plan / growth"
    )
    for one in models:
        growth, plan = one.peak - empty.peak, predicted(one, *found)
        name = f"{one.size.hidden} x {one.size.layers}"
        cells = (f"{value / MIB:.0f}" for value in (one.states, one.rest, growth, plan))
        table.add_row(name, f"{one.parameters / 1e6:.1f}", *cells, f"{plan / growth:.3f}")
    out = Console()
    out.print(table)
    out.print(
        f"MiB; empty engine {empty.peak / MIB:.0f}. Factors from the first two: states {found[0]:.2f}, activations and "
        f"logits {found[1]:.2f}; the last model is predicted."
    )


if __name__ == "__main__":
    main()
