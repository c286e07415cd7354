"""Real data beside the checkout, which some tests read and none depends on."""

from pathlib import Path

import pytest

_SHARED = Path(__file__).resolve().parents[2] / "shared"


def has_shared(relative: str) -> bool:
    return (_SHARED / relative).exists()


def shared(relative: str) -> Path:
    """A file or folder of `shared/`, or a skip that says what is missing."""
    path = _SHARED / relative
    if not path.exists():
        pytest.skip(f"needs {relative} in a folder `shared` beside the checkout")
    return path
