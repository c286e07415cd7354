"""Stage 1 with each kind of chain. A simulated search engine and an index of somebody else have tests of their own
(`test_simulated.py`, `test_foreign_index.py`), and `test_training.py` learns with fusion and a recording."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from r1searcher.common.files import read_rows
from r1searcher.corpora.passage import Passage
from r1searcher.runs.records import trajectory_rows
from tests.engine.toy import TOWNS, World, towns_and_regions
from tests.retrieval.local_web import local_web
from tests.retrieval.tiny_models import tiny_bert

pytestmark = [pytest.mark.training, pytest.mark.long]
pytest.importorskip("openrlhf")
pytest.importorskip("vllm")

STEPS = 2
WORDS = [*TOWNS, "is", "in", "."]
PASSAGES = [Passage(town, town, f"{town} is in {region}.") for town, region in towns_and_regions().items()]

Table = dict[str, Any]


@contextmanager
def dense(world: World) -> Iterator[Table]:
    from r1searcher.retrieval.indexing.base import DenseOptions
    from r1searcher.retrieval.indexing.dense import build
    from r1searcher.retrieval.neural.encoder import settings_for

    pytest.importorskip("usearch", reason="needs the extra [dense]")
    index = world.folder / "dense"
    if not index.exists():
        encoder = tiny_bert(world.folder / "encoder", "BertModel", words=WORDS)
        build(PASSAGES, index, DenseOptions(encoder=settings_for(str(encoder), max_length=64)))
    yield {"kind": "dense", "url": f"dense:{index}"}


@contextmanager
def hybrid(world: World) -> Iterator[Table]:
    """Fusion by scores, and a cross-encoder."""
    with dense(world) as vectors:
        model = tiny_bert(world.folder / "cross", "BertForSequenceClassification", words=WORDS, num_labels=1)
        fused = {"kind": "fusion", "of": [str(world.folder / "index"), vectors], "method": "scores"}
        yield {"kind": "rerank", "model": str(model), "candidates": 4, "of": fused}


@contextmanager
def web(world: World) -> Iterator[Table]:
    """A search endpoint, its pages and their summaries, recorded."""
    pytest.importorskip("trafilatura", reason="needs the extra [web]")
    with local_web(PASSAGES) as (served, address):
        yield served.settings(address, str(world.folder / "web.sqlite"))
    assert all(served.requests.values()), served.requests


@pytest.mark.parametrize(
    ("chain", "links", "name"),
    [
        (dense, ["dense"], "/dense"),
        (hybrid, ["bm25", "dense", "fusion", "rerank"], "/dense -> scores -> "),
        (web, ["web:serper", "pages", "summary"], " -> pages -> summary -> cache:"),
    ],
    ids=["dense", "hybrid", "web"],
)
def test_stage_1_trains(
    world: World,
    chain: Callable[[World], AbstractContextManager[Table]],
    links: list[str],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each search in the trajectories went through all links, or through the recording alone."""
    monkeypatch.setenv("SERPER_API_KEY", "none")
    with chain(world) as table:
        run = world.with_retrieval(chain.__name__, table).stage1(chain.__name__, "--steps", str(STEPS))
    assert [row["step"] for row in read_rows(run.metrics)] == [1, 2]
    assert name in json.loads(run.manifest.read_text("utf-8"))["index"]["name"]
    episodes = [row for step in range(1, STEPS + 1) for row in trajectory_rows(run.trajectories(step))]
    searches = [searched for episode in episodes for searched in episode["searches"]]
    passed = [[span["link"].partition(" (")[0] for span in searched["spans"]] for searched in searches]
    assert links in passed
    assert all(one == links or (one == ["cache"] and table["kind"] == "cache") for one in passed)
    assert chain is web or all(searched["hits"] for searched in searches), "only a summary can be of no help"
