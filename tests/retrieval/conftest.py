import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1searcher.corpora.readers import read_passages
from r1searcher.retrieval.embedded import build
from tests.retrieval.nodes import Node
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


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A running Elasticsearch 9."""
    running = Node(9, tmp_path_factory.mktemp("elasticsearch9"))
    running.start()
    yield running
    running.kill(signal.SIGTERM)


@pytest.fixture(scope="module")
def node8(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A running Elasticsearch 8."""
    running = Node(8, tmp_path_factory.mktemp("elasticsearch8"))
    running.start()
    yield running
    running.kill(signal.SIGTERM)
