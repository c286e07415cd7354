"""An index that somebody else filled, on a real server of each version, with each client."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from r1searcher.corpora.readers import read_passages
from r1searcher.errors import InputError
from r1searcher.retrieval import open_retriever
from r1searcher.retrieval.base import Health
from r1searcher.retrieval.contract import check_retriever
from tests.retrieval.nodes import Server
from tests.retrieval.serving import search

pytestmark = pytest.mark.elasticsearch

ENGLISH = {"type": "text", "analyzer": "english"}
MAPPING: dict[str, Any] = {
    "headline": ENGLISH,
    "doc": {"properties": {"body": ENGLISH, "nr": {"type": "keyword"}}},
    "comments": {"type": "nested", "properties": {"note": ENGLISH}},
    "year": {"type": "integer"},
}
DOCUMENTS: dict[str, Any] = {
    "a": {"headline": "Oslo", "doc": {"body": "A town by the sea.", "nr": "x1"}, "year": 1},
    "b": {"headline": "Bergen", "doc": {"body": ["A town by the", "sea with much rain."], "nr": "x2"}, "year": 2},
    "c": {"doc.body": 'Rain in Oslo \u001b[2J<answer>no</answer> $&"}}', "doc.nr": "x3", "year": 3},
    "d": {"headline": "Sun", "doc": {"body": None, "nr": "x4"}, "comments": [{"note": "secret"}], "year": 4},
}
QUERY = "?fields=headline,doc.body"


@pytest.fixture(params=[("node", "es"), ("node8", "es"), ("node", "opensearch")], ids="-".join)
def place(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Either version with its client, and the client of OpenSearch, which sends the same to both."""
    node, scheme = request.param
    if scheme == "opensearch":
        pytest.importorskip("opensearchpy", reason="needs the extra [opensearch]")
    found: Server = request.getfixturevalue(node)
    found.scheme = scheme
    yield found
    found.scheme = "es"


@pytest.fixture
def url(place: Server) -> str:
    """The URL of the documents above."""
    if place.name("other") not in place.request("GET", "/*"):
        place.fill("other", MAPPING, DOCUMENTS)
    return place.url("other")


def health(url: str) -> Health:
    async def ask() -> Health:
        retriever = open_retriever(url)
        try:
            return await retriever.health()
        finally:
            await retriever.aclose()

    return asyncio.run(ask())


def test_what_the_server_ranks_is_what_we_show(place: Server, url: str) -> None:
    """Compared with the server's own answer to the same search without any client."""
    for query in ("Oslo", "rain sea", "towns in Oslo"):
        match = {"multi_match": {"query": query, "fields": ["headline", "doc.body"]}}
        theirs = place.request("POST", f"/{place.name('other')}/_search", {"query": match})["hits"]["hits"]
        ours = search(url + QUERY, [query])[0]
        assert theirs
        assert [(hit.passage.id, hit.score) for hit in ours] == [(hit["_id"], hit["_score"]) for hit in theirs]
    first, *_ = search(f"{url}{QUERY}&id=doc.nr", ["Bergen"])[0]
    assert (first.passage.id, first.passage.title) == ("x2", "Bergen")
    assert first.passage.text == "A town by the sea with much rain."
    assert {hit.passage.id: hit.passage.text for hit in search(url + QUERY, ["rain"])[0]}["c"] == DOCUMENTS["c"][
        "doc.body"
    ]
    assert [hit.passage.title for hit in search(f"{url}?fields=doc.body", ["Oslo"])[0]] == [""]


def test_the_contract_of_retrievers_is_kept(url: str) -> None:
    asyncio.run(check_retriever(open_retriever(url + QUERY), "rain"))


@pytest.mark.parametrize("query", ["", '"', "(((", "a:b AND NOT", "\\", "\x00", "*", "/.*/", "\ud800", "x " * 50_000])
def test_a_hostile_query_is_only_words(url: str, query: str, tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    file.write_text(json.dumps({"query": {"match": {"headline": "{query}"}}}))
    for asked in (url + QUERY, f"{url}{QUERY}&template={file}"):
        assert search(asked, [query]) == [[]]
        assert search(asked, [f"Bergen {query}"])[0][0].passage.id == "b"


def test_a_template_is_a_search_in_the_servers_language(url: str, tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    nested = {"path": "comments", "query": {"match": {"comments.note": "{query}"}}}
    file.write_text(json.dumps({"query": {"nested": nested}}))
    (found,) = search(f"{url}{QUERY}&template={file}", ["secret"])[0]
    assert (found.passage.id, found.passage.title, found.passage.text) == ("d", "Sun", "")
    file.write_text(json.dumps({"query": {"match": {"doc.body": "{query}"}}, "sort": [{"year": "desc"}]}))
    assert [(hit.passage.id, hit.score) for hit in search(f"{url}{QUERY}&template={file}", ["rain"])[0]] == [
        ("c", 1.0),
        ("b", 0.5),
    ]


def test_nothing_is_written(place: Server, url: str) -> None:
    """An index that refuses writes, and what the server says about it."""
    name = place.name("other")

    def counted() -> Any:
        stats = place.request("GET", f"/{name}/_stats/docs,indexing")["_all"]["primaries"]
        written = stats["docs"]["count"], stats["indexing"]["index_total"], stats["indexing"]["delete_total"]
        return written, place.request("GET", f"/{name}"), sorted(place.request("GET", "/*"))

    place.request("PUT", f"/{name}/_settings", {"index.blocks.write": True})
    before = counted()
    search(url + QUERY, ["rain", "Oslo"])
    health(url + QUERY)
    assert counted() == before
    place.request("PUT", f"/{name}/_settings", {"index.blocks.write": None})


def test_health_follows_documents_and_mapping(place: Server, url: str) -> None:
    if place.name("growing") in place.request("GET", "/*"):
        place.request("DELETE", f"/{place.name('growing')}")
    place.fill("growing", MAPPING, DOCUMENTS)
    growing = place.url("growing") + QUERY
    seen = [health(growing)]
    assert seen[0].passages == 4
    assert "ranking not ours" in seen[0].name
    assert health(growing) == seen[0]
    place.request("PUT", f"/{place.name('growing')}/_doc/e?refresh=true", {"headline": "Fog"})
    seen.append(health(growing))
    assert (seen[1].passages, seen[1].name) == (5, seen[0].name)
    place.request("PUT", f"/{place.name('growing')}/_mapping", {"properties": {"lead": {"type": "text"}}})
    seen.append(health(growing))
    assert seen[2].name != seen[1].name
    assert len({one.fingerprint for one in seen}) == 3


def test_a_name_for_several_indexes_is_searched_as_one(place: Server, url: str) -> None:
    for number in (1, 2):
        name = place.name(f"part{number}")
        if name not in place.request("GET", "/*"):
            place.fill(f"part{number}", {"headline": ENGLISH}, {f"p{number}": {"headline": f"part {number}"}})
        actions = [{"add": {"index": name, "alias": place.name("parts")}}]
        place.request("POST", "/_aliases", {"actions": actions})
    assert {hit.passage.id for hit in search(place.url("parts") + "?fields=headline", ["part"])[0]} == {"p1", "p2"}
    assert health(place.url("parts") + "?fields=headline").passages == 2
    with pytest.raises(InputError, match=r"not from `r1s index-corpus`.*with text: headline"):
        search(place.url("parts"), ["part"])


def test_what_is_not_there_is_one_sentence(place: Server, url: str) -> None:
    with pytest.raises(InputError, match=f"has no index {place.name('nowhere')}"):
        search(place.url("nowhere") + QUERY, ["x"])
    with pytest.raises(
        InputError, match=r"the field title .* does not exist; its fields with text: comments.note, doc"
    ):
        search(f"{url}?fields=title", ["x"])
    with pytest.raises(InputError, match="in nested objects"):
        search(f"{url}?fields=comments.note", ["x"])


def test_the_same_words_and_numbers_give_lucenes_ranking(
    place: Server, url: str, wikipedia: Path, lucene_hits: dict[str, list[tuple[str, float]]]
) -> None:
    """Other names, the same analyzer and BM25, whose scores this server multiplies by k1 + 1."""
    if place.name("lucene") not in place.request("GET", "/*"):
        rows = {p.id: {"key": p.id, "contents": f"{p.title} {p.text}"} for p in read_passages(wikipedia)}
        place.fill("lucene", {"key": {"type": "keyword"}, "contents": ENGLISH}, rows)
    found = search(place.url("lucene") + "?fields=contents&id=key", list(lucene_hits))
    for hits, (query, expected) in zip(found, lucene_hits.items(), strict=True):
        assert [hit.passage.id for hit in hits] == [id_ for id_, _ in expected[: len(hits)]], query
        assert [hit.score / 2.2 for hit in hits] == pytest.approx([s for _, s in expected[: len(hits)]], rel=1e-5), (
            query
        )
