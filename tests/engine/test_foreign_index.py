"""A stage that searches an index of somebody else, with other names for its fields, on a real Elasticsearch."""

import json
from collections.abc import Iterator

import pytest

from r1searcher.common.files import read_rows
from r1searcher.runs.records import trajectory_rows
from tests.engine.toy import World, towns_and_regions
from tests.retrieval.nodes import Server, running_server
from tests.retrieval.serving import search

pytestmark = [pytest.mark.training, pytest.mark.elasticsearch, pytest.mark.long]
pytest.importorskip("openrlhf")
pytest.importorskip("vllm")


@pytest.fixture(scope="module")
def gazetteer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The towns of the toy world, filled without r1searcher."""
    server = running_server(8, tmp_path_factory.mktemp("elasticsearch"))
    mapping = {
        "place": {"properties": {"name": {"type": "text"}, "slug": {"type": "keyword"}}},
        "facts": {"type": "text"},
    }
    documents = {
        f"doc-{number}": {"place": {"name": town, "slug": f"town/{town}"}, "facts": [f"{town} is in", f"{region}."]}
        for number, (town, region) in enumerate(towns_and_regions().items())
    }
    server.fill("gazetteer", mapping, documents)
    yield server
    server.stop()


def test_a_foreign_index_trains_stage_1(world: World, gazetteer: Server) -> None:
    """The bars are those of the embedded index in test_training.py. The model searches for parts of names, mostly."""
    url = f"{gazetteer.url('gazetteer')}?fields=place.name,facts&id=place.slug"
    regions = towns_and_regions()
    assert [hits[0].passage.title for hits in search(url, list(regions))] == list(regions)

    run = world.stage1("foreign", "--steps", "9", "--retriever", url)
    rows = list(read_rows(run.metrics))
    assert [row["step"] for row in rows] == list(range(1, 10))
    rates = [row["retrieval"] for row in rows]
    assert rates[0] < 0.65, rates
    assert min(rates[-2:]) > rates[0] + 0.27, rates

    found = set()
    for step in range(1, 10):
        for episode in trajectory_rows(run.trajectories(step)):
            for searched in episode["searches"]:
                for hit in searched["hits"]:
                    town = hit["title"]
                    assert (hit["id"], hit["text"]) == (f"town/{town}", f"{town} is in {regions[town]}.")
                    found.add(town)
    assert found

    index = json.loads(run.manifest.read_text("utf-8"))["index"]
    assert "ranking not ours (mapping " in index["name"]
    assert index["passages"] == len(regions)
    assert index["fingerprint"]
