"""The shared data beside the checkout, for tests that read real rows; they skip, with a reason, where it is absent."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"

needs_shared_data = pytest.mark.skipif(
    not (SHARED / "data").is_dir(), reason="no shared/data beside the checkout (released rows and real passages)"
)
