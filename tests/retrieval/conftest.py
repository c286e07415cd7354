from pathlib import Path

import pytest

from r1searcher.corpora.readers import read_passages
from r1searcher.retrieval.embedded import build
from tests.shared_data import shared


@pytest.fixture(scope="session")
def wikipedia() -> Path:
    """20,491 real passages, JSONL."""
    return shared("data/retrieval/c20k.jsonl")


@pytest.fixture(scope="session")
def wikipedia_index(wikipedia: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("index") / "wikipedia"
    build(read_passages(wikipedia), path)
    return path
