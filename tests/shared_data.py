"""Data of tests: small real fixtures in `tests/data`, and larger data where an environment variable points at it."""

import os
from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data"
SHARED_VARIABLE = "R1S_TEST_SHARED"
"""Environment variable: a folder with the larger data (`data/`, `bm25/`, `elasticsearch/`, …)."""


def has_shared(relative: str) -> bool:
    folder = os.environ.get(SHARED_VARIABLE)
    return bool(folder) and (Path(folder) / relative).exists()


def shared(relative: str) -> Path:
    """A file or folder of the larger data, or a skip that says what is missing. Mark the test `shared`."""
    if not has_shared(relative):
        pytest.skip(f"needs {relative} in the folder that {SHARED_VARIABLE} names")
    return Path(os.environ[SHARED_VARIABLE]) / relative
