import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1searcher.corpora.readers import read_passages
from r1searcher.retrieval.indexing.bm25 import build
from tests.retrieval.nodes import Node, Server, outside_opensearch, running_server
from tests.retrieval.serving import serving
from tests.shared_data import DATA, shared

Hits = dict[str, list[tuple[str, float]]]


@pytest.fixture(scope="session")
def wikipedia() -> Path:
    """771 real passages, JSONL."""
    return DATA / "retrieval/passages.jsonl"


@pytest.fixture(scope="session")
def lucene_hits() -> Hits:
    """The top 10 of `wikipedia` that Lucene finds for each of 80 questions and queries: ids with scores."""
    rows = (json.loads(line) for line in (DATA / "retrieval/hits.jsonl").read_text("utf-8").split("\n") if line)
    return {row["query"]: [(id_, score) for id_, score in row["hits"]] for row in rows}


@pytest.fixture(scope="session")
def wikipedia_index(wikipedia: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("index") / "wikipedia"
    build(read_passages(wikipedia), path)
    return path


@pytest.fixture(scope="session")
def large_wikipedia() -> Path:
    """20,491 real passages, JSONL; for tests marked `shared`."""
    return shared("data/retrieval/c20k.jsonl")


@pytest.fixture(scope="session")
def large_lucene_hits() -> Hits:
    """The same of `large_wikipedia`, for 1,000 questions and queries."""
    hits: Hits = {}
    for kind in ("questions", "queries"):
        queries = shared(f"data/retrieval/bench_{kind}.txt").read_text("utf-8").splitlines()
        found = shared(f"data/retrieval/hits_lucene_c20k_{kind}.jsonl").read_text("utf-8").splitlines()
        hits |= {query: json.loads(line) for query, line in zip(queries, found, strict=True)}
    return hits


@pytest.fixture(scope="session")
def large_index(large_wikipedia: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("index") / "wikipedia"
    build(read_passages(large_wikipedia), path)
    return path


@pytest.fixture(scope="module")
def address(index: Path) -> Iterator[str]:
    """The address of a server of the test module's own fixture `index`."""
    with serving(str(index)) as url:
        yield url


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running Elasticsearch 9."""
    server = running_server(9, tmp_path_factory.mktemp("elasticsearch9"))
    yield server
    server.stop()


@pytest.fixture(params=["es", "opensearch"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Elasticsearch, and OpenSearch where there is one; else Elasticsearch again, with the client of OpenSearch."""
    outside = None
    if request.param == "opensearch":
        pytest.importorskip("opensearchpy", reason="needs the extra [opensearch]")
        outside = outside_opensearch()
    found: Server = outside or request.getfixturevalue("node")
    found.scheme = request.param
    yield found
    if outside:
        outside.stop()
    found.scheme = "es"


@pytest.fixture
def mortal_node(node: Server) -> Node:
    """A server that a test may kill, if it starts it again."""
    if not isinstance(node, Node):
        pytest.skip("kills its server, so it needs one of its own, not a URL")
    return node


@pytest.fixture(scope="module")
def node8(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running Elasticsearch 8."""
    server = running_server(8, tmp_path_factory.mktemp("elasticsearch8"))
    yield server
    server.stop()
