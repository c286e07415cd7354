"""What a server of Elasticsearch or OpenSearch may answer that is wrong, or that will pass; each by its own client.

No healthy server gives these answers, so a small one of ours does. The real one: tests/retrieval/test_elasticsearch.py.
"""

import asyncio
import copy
import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import pytest

from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError, R1Error, RetrieverError
from r1searcher.retrieval import open_retriever
from r1searcher.retrieval.base import Hit, hits_of
from r1searcher.retrieval.indexing.elasticsearch import check_target, load
from r1searcher.retrieval.indexing.manifest import FORMAT
from tests.common.servers import answer, raw_server

MANIFEST = {
    "settings": {"analyzer": "english", "k1": 1.0, "b": 0.75, "title_weight": None},
    "passages": 1,
    "corpus_sha256": "x",
    "format": FORMAT,
}
STATES = {
    "ix-000001": {
        "aliases": {"ix": {}},
        "mappings": {"_meta": {"r1searcher": {"manifest": MANIFEST}}},
        "settings": {"index": {"number_of_shards": "1"}},
    }
}
FOUND = {
    "timed_out": False,
    "_shards": {"failed": 0},
    "hits": {"hits": [{"_index": "ix-000001", "_source": {"id": "1", "title": "T", "text": "x"}, "sort": [3.0, 0]}]},
    "status": 200,
}


Serve = Callable[..., AbstractContextManager[str]]
PRODUCTS = {"es": "Elasticsearch", "opensearch": "OpenSearch"}


@pytest.fixture(params=PRODUCTS)
def serve(request: pytest.FixtureRequest) -> Serve:
    if request.param == "opensearch":
        pytest.importorskip("opensearchpy", reason="needs the extra [opensearch]")
    return partial(_serve, request.param)


@contextmanager
def _serve(scheme: str, states: Any = STATES, found: Any = None, status: str = "200 OK") -> Iterator[str]:
    """The URL of an index on a server that describes it so, and answers a search so."""
    responses = found if isinstance(found, dict) and "responses" in found else {"responses": [found or FOUND]}

    def behave(connection: socket.socket, request: bytes) -> None:
        _, path, _ = request.split(b" ", 2)
        value: Any = {"version": {"number": "9.0.0"}, "tagline": "You Know, for Search"}
        line = "200 OK"
        if b"_msearch" in path:
            value, line = responses, status
        elif path != b"/":
            value = states
        product = ["X-Elastic-Product: Elasticsearch"] if scheme == "es" else []
        answer(json.dumps(value).encode(), line, "Content-Type: application/json", *product)(connection, request)

    with raw_server(behave) as server:
        yield server.url.replace("http:", f"{scheme}:") + "/ix"


def search(url: str, top_k: int = 5) -> list[Hit]:
    async def run() -> list[Hit]:
        retriever = open_retriever(url)
        try:
            return list((await hits_of(retriever, ["q"], top_k))[0])
        finally:
            await retriever.aclose()

    return asyncio.run(run())


def changed(value: Any, path: str, new: Any) -> Any:
    """A copy with one place set, or removed where `new` is `...`."""
    value = copy.deepcopy(value)
    place = value
    *way, last = [int(step) if step.isdigit() else step for step in path.split("/")]
    for step in way:
        place = place[step]
    if new is ...:
        del place[last]
    else:
        place[last] = new
    return value


def test_the_answers_that_the_others_are_made_of(serve: Serve) -> None:
    with serve() as url:
        assert search(url) == [Hit(Passage("1", "T", "x"), 1.5)]


@pytest.mark.parametrize(
    ("path", "new"),
    [
        ("hits", ...),
        ("hits", None),
        ("hits", []),
        ("hits/hits", None),
        ("hits/hits", {}),
        ("hits/hits/0", None),
        ("hits/hits/0/_source", ...),
        ("hits/hits/0/_source", None),
        ("hits/hits/0/_source/id", ...),
        ("hits/hits/0/_source/title", None),
        ("hits/hits/0/_source/text", 3),
        ("hits/hits/0/_index", ...),
        ("hits/hits/0/_index", None),
        ("hits/hits/0/sort", ...),
        ("hits/hits/0/sort", []),
        ("hits/hits/0/sort", [None, 0]),
        ("hits/hits/0/sort", ["high", 0]),
        ("hits/hits/0/sort", [float("nan"), 0]),
        ("hits/hits/0/sort", [float("inf"), 0]),
        ("_shards", None),
        ("_shards", {}),
        ("timed_out", "x"),
    ],
)
def test_hits_of_another_shape_are_one_sentence(serve: Serve, path: str, new: Any) -> None:
    with serve(found=changed(FOUND, path, new)) as url, pytest.raises(RetrieverError) as raised:
        search(url)
    assert re.search(r"sent a response that is not (Elasticsearch|OpenSearch)'s", str(raised.value))
    assert str(raised.value).isprintable()
    assert not raised.value.transient


@pytest.mark.parametrize("responses", [None, {}, [], [FOUND, FOUND], "x", [None], ["x"]])
def test_an_msearch_of_another_shape_is_one_sentence(serve: Serve, responses: Any) -> None:
    with (
        serve(found={"responses": responses}) as url,
        pytest.raises(RetrieverError, match=r"not (Elasticsearch|OpenSearch)'s"),
    ):
        search(url)


STATE_CHANGES = [
    ("ix-000001", None),
    ("ix-000001/aliases", None),
    ("ix-000001/mappings", None),
    ("ix-000001/mappings", []),
    ("ix-000001/mappings/_meta", "x"),
    ("ix-000001/mappings/_meta/r1searcher", "x"),
    ("ix-000001/mappings/_meta/r1searcher/manifest", ...),
    ("ix-000001/mappings/_meta/r1searcher/manifest", "x"),
    ("ix-000001/mappings/_meta/r1searcher/manifest", {}),
    ("ix-000001/mappings/_meta/r1searcher/manifest/settings", "x"),
    ("ix-000001/mappings/_meta/r1searcher/manifest/settings/k1", "x"),
    ("ix-000001/mappings/_meta/r1searcher/manifest/passages", []),
    ("ix-000001/settings", None),
    ("ix-000001/settings/index", {}),
    ("ix-000001/settings/index/number_of_shards", "many"),
]


@pytest.mark.parametrize(("path", "new"), STATE_CHANGES)
def test_an_index_of_another_shape_is_one_sentence(serve: Serve, path: str, new: Any) -> None:
    with serve(changed(STATES, path, new)) as url, pytest.raises(R1Error) as raised:
        search(url)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("states", [None, [], "x", 3, {"ix-000001": {}}, {"error": 3}, {"error": {"root_cause": {}}}])
def test_indexes_of_another_shape_are_one_sentence(serve: Serve, states: Any) -> None:
    for ask in (search, lambda url: check_target(url, False), lambda url: load([Passage("1", "T", "x")], url)):
        with serve(states) as url, pytest.raises(R1Error) as raised:
            ask(url)
        assert str(raised.value).isprintable()


def error(kind: Any, status: int, reason: Any = "why") -> Any:
    return {
        "error": {"root_cause": [{"type": kind, "reason": reason}], "type": kind, "reason": reason},
        "status": status,
    }


@pytest.mark.parametrize(
    ("found", "transient"),
    [
        (error("no_shard_available_action_exception", 503), True),
        (error("search_phase_execution_exception", 503), True),
        (error("es_rejected_execution_exception", 429), True),
        (error("search_phase_execution_exception", 500), True),
        (error("cluster_block_exception", 503, "blocked by: [SERVICE_UNAVAILABLE/1/state not recovered]"), True),
        (error("cluster_block_exception", 403), False),
        (error("query_shard_exception", 400), False),
        (error("index_closed_exception", 400), False),
        (error(None, 400, None), False),
        (error({}, 400, ["\x1b[2J"]), False),
        ({"error": "text", "status": 400}, False),
        ({**FOUND, "timed_out": True}, True),
        (changed(FOUND, "_shards/failed", 1), True),
    ],
    ids=lambda value: str(value)[:70],
)
@pytest.mark.parametrize("whole", [False, True])
def test_which_errors_of_a_search_may_pass(serve: Serve, found: Any, transient: bool, whole: bool) -> None:
    """As an error of one query in an msearch, and of the whole request."""
    if whole and "error" not in found:
        return
    made = serve(found=found)
    if whole:
        made = serve(found={"responses": 0, **found}, status=f"{found['status']} X")
    with made as url, pytest.raises(RetrieverError) as raised:
        search(url)
    assert raised.value.transient is transient
    assert str(raised.value).isprintable()


def test_nobody_there_may_pass_and_no_access_will_not(serve: Serve) -> None:
    for scheme in PRODUCTS:
        with pytest.raises(RetrieverError, match="does not answer") as raised:
            search(f"{scheme}://127.0.0.1:9/ix")
        assert raised.value.transient
    for status in (401, 403):
        with (
            serve(found=error("security_exception", status)) as url,
            pytest.raises(InputError, match="refuses"),
        ):
            search(url)


def test_more_hits_than_asked_for_are_cut(serve: Serve) -> None:
    many = changed(FOUND, "hits/hits", FOUND["hits"]["hits"] * 9)  # type: ignore[index]
    with serve(found=many) as url:
        assert len(search(url, 3)) == 3


@pytest.mark.parametrize(
    ("created", "factor"), [(8536000, 2.0), (136407827, 2.0), (137217827, 1.0)], ids=["es 8.19", "os 2.19", "os 3.0"]
)
def test_scores_are_lucenes_whatever_the_server_multiplies_them_by(serve: Serve, created: int, factor: float) -> None:
    """Elasticsearch and OpenSearch before 3.0 multiply by k1 + 1, later ones do not."""
    states = changed(STATES, "ix-000001/settings/index/version", {"created": str(created)})
    with serve(states) as url:
        assert search(url)[0].score == 3.0 / factor
