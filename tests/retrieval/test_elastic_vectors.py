"""The vectors of an index of Elasticsearch, a real one, with an encoder of random weights.

`make test-elasticsearch` runs these tests; tests/retrieval/nodes.py says where the server comes from.
"""

import json
import random
import shutil
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError
from r1searcher.retrieval.indexing.base import DenseOptions, IndexOptions
from tests.retrieval.nodes import Server
from tests.retrieval.serving import search
from tests.retrieval.test_commands import r1s
from tests.retrieval.test_lookup import titles
from tests.retrieval.tiny_models import WORDS, tiny_bert

pytest.importorskip("torch")
pytestmark = [pytest.mark.elasticsearch, pytest.mark.training]

from r1searcher.retrieval import open_retriever  # noqa: E402
from r1searcher.retrieval.indexing import elasticsearch as indexing  # noqa: E402
from r1searcher.retrieval.indexing.elasticsearch import load  # noqa: E402
from r1searcher.retrieval.neural.encoder import settings_for  # noqa: E402
from tests.retrieval.test_dense import embedded  # noqa: E402

LONGEST = 100
QUERIES = ["w5 w6 w7", "w100", "w1 w2 w3 w4 w5 w6"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("encoder") / "tiny", "BertModel")


@pytest.fixture(scope="module")
def passages() -> list[Passage]:
    draw = random.Random(4)
    return [Passage(f"p{n}", "w1 w2", " ".join(draw.choices(WORDS, k=draw.randint(3, 60)))) for n in range(500)]


def options(model: Path, vectors: Literal["float32", "int8", "float16"] = "float32", **keys: Any) -> IndexOptions:
    return IndexOptions(dense=DenseOptions(settings_for(str(model), max_length=LONGEST, **keys), vectors))


@pytest.mark.parametrize(
    ("vectors", "error", "place"), [("float32", 1e-5, "node"), ("int8", 0.02, "node"), ("int8", 0.02, "node8")]
)
def test_knn_finds_what_is_nearest(
    vectors: Any,
    error: float,
    place: str,
    model: Path,
    passages: list[Passage],
    request: pytest.FixtureRequest,
) -> None:
    node: Server = request.getfixturevalue(place)
    url = node.url(f"nearest-{vectors}")
    load(passages, url, options(model, vectors))
    mapping = node.request("GET", f"/{node.name(f'nearest-{vectors}')}/_mapping")
    [index] = mapping.values()
    stored = index["mappings"]["properties"]["vector"]["index_options"]
    kind = {"float32": "hnsw", "int8": "int8_hnsw"}[vectors]
    assert stored.items() >= {"type": kind, "m": 32, "ef_construction": 256}.items()
    cosines = embedded(model, QUERIES) @ embedded(model, [f"{p.title}\n{p.text}" for p in passages]).T
    for hits, expected in zip(search(f"{url}?search=knn", QUERIES, 20), cosines, strict=True):
        assert [hit.score for hit in hits] == pytest.approx(np.sort(expected)[::-1][:20], abs=error)
        for hit in hits:
            ordinal = int(hit.passage.id[1:])
            assert hit.passage == passages[ordinal]
            assert hit.score == pytest.approx(expected[ordinal], abs=error)


def test_the_same_index_is_searched_by_terms_too(node: Server, model: Path, passages: list[Passage]) -> None:
    both, plain = node.url("both"), node.url("plain")
    assert load(passages, both, options(model)) == load(passages, plain)
    query = f"w1 w2 {passages[40].text}"
    assert search(both, [query]) == search(plain, [query])
    fused = search(f"{both} + {both}?search=knn -> fusion", [query, ""], 5)
    assert fused[0][0].passage == passages[40]
    assert not fused[1], "nothing was asked"
    assert titles(open_retriever(f"{both}?search=knn"), ["p7", "w1"]) == ["w1 w2", None]
    with pytest.raises(InputError, match=r"plain .* has no vectors: fill it with `r1s index-corpus … --dense MODEL`"):
        search(f"{plain}?search=knn", [query])


def interrupted(passages: Sequence[Passage], after: int) -> Iterator[Passage]:
    yield from islice(passages, after)
    raise KeyboardInterrupt


def test_an_interrupted_load_resumes_with_the_same_encoder_only(
    node: Server, model: Path, passages: list[Passage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "_CHUNK", 50)
    monkeypatch.setattr(indexing, "_CHECKPOINT_EVERY", 100)
    url, whole = node.url("resumed"), node.url("whole")
    load(passages, whole, options(model))
    with pytest.raises(KeyboardInterrupt):
        load(interrupted(passages, 420), url, options(model))
    for other in (IndexOptions(), options(model, "int8"), options(model, query_prefix="w1 ")):
        with pytest.raises(InputError, match="other passages or settings"):
            load(passages, url, other)
    load(passages, url, options(model))
    assert search(f"{url}?search=knn", QUERIES, 20) == search(f"{whole}?search=knn", QUERIES, 20)


def test_another_model_of_the_same_name_is_refused(
    node: Server, model: Path, passages: list[Passage], tmp_path: Path
) -> None:
    copy = shutil.copytree(model, tmp_path / "model")
    url = node.url("weights")
    load(passages[:20], url, options(copy))
    tiny_bert(copy, "BertModel", seed=5)
    with pytest.raises(InputError, match=r"is not the model that .* was made with"):
        search(f"{url}?search=knn", ["w1"])


def test_the_commands(node: Server, model: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"id": str(n), "title": "", "text": f"w{n}"}) + "\n" for n in range(30)))
    filling = ("index-corpus", corpus, "--to", node.url("command"), "--dense", model)
    code, _, said = r1s(*filling)
    assert code == 2
    assert "add --vectors float32 or --vectors int8" in said
    code, _, said = r1s(*filling, "--vectors", "float32")
    assert code == 0, said
    code, found, said = r1s("search", f"{node.url('command')}?search=knn", "w7", "--json")
    assert code == 0, said
    assert json.loads(found)[0] == ["7", pytest.approx(1, abs=1e-5)]
