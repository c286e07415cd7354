from collections.abc import Iterator
from pathlib import Path

import pytest

from r1searcher.corpora.readers import read_passages
from r1searcher.retrieval.embedded import build
from tests.retrieval.nodes import Node, Server, running_server
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
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running Elasticsearch 9."""
    server = running_server(9, tmp_path_factory.mktemp("elasticsearch9"))
    yield server
    server.stop()


@pytest.fixture
def mortal_node(node: Server) -> Node:
    """A server that a test may kill, if it starts it again."""
    if not isinstance(node, Node):
        pytest.skip("kills its server, so it needs one of its own from shared/elasticsearch")
    return node


@pytest.fixture(scope="module")
def node8(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running Elasticsearch 8."""
    server = running_server(8, tmp_path_factory.mktemp("elasticsearch8"))
    yield server
    server.stop()
