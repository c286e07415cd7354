"""Memory that the engine took on CPU, and what a plan says after two measurements."""

from pathlib import Path

import pytest

from tests.planning.calibration import calibrate, predicted

pytestmark = [pytest.mark.training, pytest.mark.long]
pytest.importorskip("openrlhf")


def test_a_third_model_grows_within_15_percent_of_its_plan(tmp_path: Path) -> None:
    empty, models, found = calibrate(tmp_path)
    last = models[-1]
    assert last.parameters > 2 * max(one.parameters for one in models[:-1])
    assert predicted(last, *found) == pytest.approx(last.peak - empty.peak, rel=0.15)
