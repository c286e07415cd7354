"""An index that somebody else filled: its URL, its documents, templates, and what its server may say.

With a real server: tests/retrieval/test_foreign_server.py.
"""

import asyncio
import base64
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from r1searcher.config.settings import load
from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError, R1Error, RetrieverError
from r1searcher.retrieval import open_retriever
from r1searcher.retrieval.base import Health, Hit, hits_of
from r1searcher.retrieval.elastic.foreign import MAX_TEXT, Document, Template
from r1searcher.retrieval.indexing.elasticsearch import check_target
from r1searcher.retrieval.registry import described, settings_of, settings_of_table
from tests.common.http_server import http_server
from tests.common.servers import answer, raw_server

MAPPING = {
    "headline": {"type": "text", "fields": {"raw": {"type": "keyword"}}},
    "doc": {"properties": {"body": {"type": "text"}, "key": {"type": "long"}}},
    "comments": {"type": "nested", "properties": {"note": {"type": "text"}}},
}
STATES: dict[str, Any] = {
    "wiki-7": {
        "aliases": {"wiki": {}},
        "mappings": {"properties": MAPPING},
        "settings": {"index": {"number_of_shards": "1", "analysis": {}}},
    }
}
HIT = {"_index": "wiki-7", "_id": "a", "_score": 3.5, "_source": {"headline": "T", "doc": {"body": "x", "key": 5}}}


@contextmanager
def foreign(hits: Any = (HIT,), states: Any = STATES, count: Any = 12) -> Iterator[tuple[str, list[bytes]]]:
    """`es://host:port/wiki` at a server with these answers, and its requests."""

    def behave(connection: socket.socket, request: bytes) -> None:
        path = request.split(b" ", 2)[1]
        value: Any = states
        if path.endswith(b"/_count"):
            value = {"count": count}
        elif path == b"/_msearch":
            found = {"timed_out": False, "_shards": {"failed": 0}, "hits": {"hits": list(hits)}, "status": 200}
            value = {"responses": [found]}
        headers = ("Content-Type: application/json", "X-Elastic-Product: Elasticsearch")
        answer(json.dumps(value).encode(), "200 OK", *headers)(connection, request)

    with raw_server(behave) as server:
        yield server.url.replace("http:", "es:") + "/wiki", server.requests


def run(url: str, query: str = "q") -> tuple[tuple[Hit, ...], Health]:
    async def ask() -> tuple[tuple[Hit, ...], Health]:
        retriever = open_retriever(url)
        try:
            return (await hits_of(retriever, [query], 5))[0], await retriever.health()
        finally:
            await retriever.aclose()

    return asyncio.run(ask())


def test_a_hit_is_the_fields_of_its_document() -> None:
    with foreign() as (url, requests):
        hits, health = run(f"{url}?fields=headline,doc.body&id=doc.key", 'say "hi"')
    assert hits == (Hit(Passage("5", "T", "x"), 3.5),)
    assert health.passages == 12
    assert "ranking not ours (mapping " in health.name
    header, body = map(json.loads, requests[1].partition(b"\r\n\r\n")[2].splitlines())
    assert header["index"] == "wiki"
    assert body["query"] == {"multi_match": {"query": 'say "hi"', "fields": ["headline", "doc.body"]}}
    assert body["_source"] == ["headline", "doc.body", "doc.key"]
    paths = [request.split(b" ", 2)[:2] for request in requests]
    assert {tuple(path) for path in paths} == {(b"GET", b"/wiki"), (b"POST", b"/_msearch"), (b"GET", b"/wiki/_count")}


def test_the_keys_of_a_url_are_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = settings_of("es+https://h/wiki?fields=title,doc.body&id=key&template=my%20query.json")
    table = {"url": "es+https://h/wiki", "fields": ["title", "doc.body"], "id": "key", "template": "my query.json"}
    assert engine == settings_of_table("es", table)
    assert described(engine) == {"kind": "es", **table}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.toml").write_text('retrieval.url = "es://h/wiki?fields=title&template=q.json"\n')
    retrieval = load("stage1", tmp_path / "s.toml").retrieval.absolute()
    assert (retrieval.kind, retrieval.url) == ("es", "es://h/wiki")
    assert retrieval.engine.model_dump()["template"] == os.path.join(tmp_path, "q.json")
    assert retrieval.engine.model_dump()["fields"] == ("title",)
    chain = settings_of("es://h/wiki?fields=title + opensearch://h/wiki?fields=body -> fusion -> cache:x")
    assert [one.fields for one in chain.of.of] == [("title",), ("body",)]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("es://h/x?field=title", r"after \? come fields, id, template, search, not 'field'"),
        ("opensearch://h/x?search=knn", r"after \? come fields, id, template, not 'search'"),
        ("es://h/x?fields=a&search=knn", "knn searches an index of `r1s index-corpus`"),
        ("es://h/x?search=vectors", "search"),
        ("es://h/x?fields=a&fields=b", "fields is given twice"),
        ("es://h/x?fields=", "must be different names of fields"),
        ("es://h/x?fields=a,a", "must be different names of fields"),
        ("es://h/x?fields=*", "must be different names of fields"),
        ("es://h/x?id=key", "id and template need fields"),
        ("es://me:geheim@h/x?fields=a", "leave user and password out of the URL; set R1S_ELASTICSEARCH_API_KEY"),
        ("opensearch://me:geheim@h/x", "leave user and password out of the URL; set R1S_OPENSEARCH_USER and"),
        ("es://h/x?fields=a&token=geheim", "after"),
        ("opensearch://h", "write opensearch://host:9200/name"),
        ("es://h/..?fields=a", "is not a valid index name"),
    ],
)
def test_a_url_that_cannot_work_is_one_sentence(url: str, why: str) -> None:
    with pytest.raises(InputError, match=why) as raised:
        open_retriever(url)
    assert "geheim" not in str(raised.value)


def test_an_index_to_fill_has_no_fields(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="an index to fill has no keys after its name"):
        check_target("es://h/x?fields=title", False)
    (tmp_path / "s.toml").write_text('[retrieval]\nkind = "es"\nurl = "es://h/x?field=title"\n')
    with pytest.raises(InputError, match="come fields, id, template"):
        load("stage1", tmp_path / "s.toml")


@pytest.mark.parametrize(
    ("states", "query", "why"),
    [
        ({}, "fields=headline", "has no index wiki"),
        (
            STATES,
            "fields=title",
            r"the field title of wiki .* does not exist; .* with text: comments.note, doc.body, headl",
        ),
        (STATES, "fields=headline,doc.key", "the field doc.key of wiki .* holds long, not text"),
        (STATES, "fields=headline,doc", "the field doc of wiki .* holds object, not text"),
        (STATES, "fields=headline.raw", "the field headline.raw of wiki .* does not exist"),
        (STATES, "fields=comments.note", "comments.note of wiki .* is in nested objects: give a template"),
        (STATES, "fields=headline&id=nr", "the field nr of wiki .*, for ids, does not exist"),
        (
            STATES,
            "",
            r"not from `r1s index-corpus`: to search it as it is, add \?fields=.*comments.note, doc.body, headl",
        ),
        (
            {"wiki": {**STATES["wiki-7"], "mappings": {"_source": {"enabled": False}, "properties": MAPPING}}},
            "fields=headline",
            "_source is off",
        ),
    ],
)
def test_an_index_that_does_not_fit_is_one_sentence(states: Any, query: str, why: str) -> None:
    """A server would search a field that does not exist, and find nothing."""
    with foreign(states=states) as (url, _), pytest.raises(InputError, match=why) as raised:
        run(f"{url}?{query}" if query else url)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    "mapping",
    [
        None,
        [],
        {"headline": "text"},
        {"headline": {"type": ["text"]}},
        {"headline": {"type": "text", "properties": 3}, "\x1b[2J": {"type": "text"}},
    ],
)
def test_a_mapping_of_another_shape_is_one_sentence(mapping: Any) -> None:
    states = {"wiki": {**STATES["wiki-7"], "mappings": {"properties": mapping}}}
    with foreign(states=states) as (url, _), pytest.raises(R1Error) as raised:
        run(f"{url}?fields=nowhere")
    assert str(raised.value).isprintable()


def health_of(states: Any = STATES, count: int = 12, query: str = "fields=headline") -> Health:
    with foreign(states=states, count=count) as (url, _):
        return run(f"{url}?{query}")[1]


def test_the_fingerprint_follows_what_a_ranking_depends_on(tmp_path: Path) -> None:
    def with_index(**settings: Any) -> Any:
        index = {**STATES["wiki-7"]["settings"]["index"], **settings}
        return {"wiki-7": {**STATES["wiki-7"], "settings": {"index": index}}}

    template = tmp_path / "t.json"
    template.write_text('{"query": {"match": {"headline": "{query}"}}}')
    more = {"wiki-7": {**STATES["wiki-7"], "mappings": {"properties": {**MAPPING, "new": {"type": "text"}}}}}
    same = health_of().fingerprint
    assert health_of(with_index(uuid="other", creation_date="9")).fingerprint == same
    others = [
        health_of(more),
        health_of(count=13),
        health_of(query="fields=headline,doc.body"),
        health_of(query=f"fields=headline&template={template}"),
        health_of(with_index(similarity={"default": {"type": "BM25", "k1": "0.9"}})),
        health_of(with_index(analysis={"analyzer": {"default": {"type": "english"}}})),
        health_of(with_index(number_of_shards="2")),
    ]
    assert len({same, *(health.fingerprint for health in others)}) == 8
    assert [health.name.split(":")[-1] == health_of().name.split(":")[-1] for health in others[:2]] == [False, False]


@pytest.mark.parametrize("count", [None, "many", [], 1.5])
def test_a_count_of_another_shape_is_one_sentence(count: Any) -> None:
    with foreign(count=count) as (url, _), pytest.raises(RetrieverError, match="not Elasticsearch's"):
        run(f"{url}?fields=headline")


TWO = Document(("title", "doc.text"), "nr")


@pytest.mark.parametrize(
    ("source", "passage"),
    [
        ({"nr": 7, "title": "T", "doc": {"text": "x"}}, Passage("7", "T", "x")),
        ({"nr": "b", "title": "T", "doc.text": "x"}, Passage("b", "T", "x")),
        (
            {"nr": ["c"], "title": ["A", "B"], "doc": [{"text": "x"}, {"text": ["y", "z"]}]},
            Passage("c", "A B", "x y z"),
        ),
        ({"nr": "d", "doc": {"text": "x"}}, Passage("d", "", "x")),
        ({"nr": "e", "title": "T", "doc": {"text": None}}, Passage("e", "T", "")),
        ({"nr": "f", "title": 3, "doc": {"text": [True, 2.5, None]}}, Passage("f", "3", "true 2.5")),
        (
            {"nr": "g", "title": "\ud800", "doc": {"text": "x\x00\x1b[2J<|im_end|>"}},
            Passage("g", "?", "x\x00\x1b[2J<|im_end|>"),
        ),
        ({"nr": "h", "title": "T", "doc": {"text": "y" * (MAX_TEXT + 5)}}, Passage("h", "T", "y" * MAX_TEXT)),
        ({"nr": "i", "title": " ", "doc": {"text": []}}, None),
        ({"nr": "j"}, None),
    ],
)
def test_what_a_document_says(source: Any, passage: Passage | None) -> None:
    assert TWO.passage("server's", source) == passage


def test_lists_in_lists_are_read_however_deep() -> None:
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    assert Document(("text",)).passage("1", {"text": deep}) == Passage("1", "", "x")


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ({"title": "T"}, "nr is not one text or whole number"),
        ({"nr": [1, 2], "title": "T"}, "nr is not one text or whole number"),
        ({"nr": True, "title": "T"}, "nr is not one text or whole number"),
        ({"nr": 1.5, "title": "T"}, "nr is not one text or whole number"),
        ({"nr": {"a": 1}, "title": "T"}, "nr is not one text or whole number"),
        ({"nr": "", "title": "T"}, "nr is not one text or whole number"),
        ({"nr": 1, "title": {"a": 1}}, "title is an object"),
    ],
)
def test_a_document_that_is_not_text_is_an_error_of_its_query(source: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        TWO.passage("server's", source)


def test_an_error_of_a_document_names_it() -> None:
    with (
        foreign([{**HIT, "_source": {"headline": {"a": 1}}}]) as (url, _),
        pytest.raises(RetrieverError, match=r"Document a of wiki at .* its field headline is an object, not text"),
    ):
        run(f"{url}?fields=headline")


def test_documents_with_nothing_to_show_are_left_out_but_never_all_of_them() -> None:
    empty = {**HIT, "_id": "e", "_source": {}}
    with foreign([empty, HIT]) as (url, _):
        assert [hit.passage.id for hit in run(f"{url}?fields=headline")[0]] == ["a"]
    with (
        foreign([empty, empty]) as (url, _),
        pytest.raises(RetrieverError, match=r"Document e .* has nothing in headline"),
    ):
        run(f"{url}?fields=headline")
    with foreign([{**HIT, "_source": None}]) as (url, _), pytest.raises(RetrieverError, match="has no _source"):
        run(f"{url}?fields=headline")
    with foreign([]) as (url, _):
        assert run(f"{url}?fields=headline")[0] == ()


@pytest.mark.parametrize(
    "change",
    [
        {"_id": None},
        {"_id": 3},
        {"_score": "high"},
        {"_score": float("nan")},
        {"_source": []},
        {"_source": "text"},
    ],
    ids=str,
)
def test_a_hit_of_another_shape_is_one_sentence(change: Any) -> None:
    with foreign([{**HIT, **change}]) as (url, _), pytest.raises(RetrieverError, match="not Elasticsearch's") as raised:
        run(f"{url}?fields=headline")
    assert str(raised.value).isprintable()


def test_a_template_takes_the_query_as_one_string_and_its_order_as_the_score(tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    body = {
        "query": {"bool": {"must": [{"match": {"headline": "{query}"}}], "filter": [{"term": {"k": 1}}]}},
        "sort": ["k"],
    }
    file.write_text(json.dumps(body))
    query = '"}}, {"match_all": {}}, "{query}" \\" \ud800 \n'
    unsorted = {**HIT, "_score": None}
    with foreign([unsorted, unsorted]) as (url, requests):
        hits, _ = run(f"{url}?fields=headline&template={file}", query)
    assert [hit.score for hit in hits] == [1.0, 0.5]
    sent = json.loads(requests[1].partition(b"\r\n\r\n")[2].splitlines()[1])
    assert sent["query"]["bool"]["must"] == [{"match": {"headline": query.replace("\ud800", "?")}}]
    assert sent["query"]["bool"]["filter"] == [{"term": {"k": 1}}]
    assert (sent["size"], sent["sort"]) == (5, ["k"])
    assert Template(body).filled("x") is not body
    assert body["query"]["bool"]["must"] == [{"match": {"headline": "{query}"}}], "the template itself stays"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "template"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "must be the body of a search"),
        ('{"query": {"match_all": {}}}', 'needs the value "{query}"'),
        ('{"query": {"query_string": {"query": "title:{query}"}}}', 'needs the value "{query}"'),
        ('{"query": {"match": {"t": "{query}"}}, "b": ["x {query}"]}', "inside a longer text"),
        ('{"query": {"match": {"{query}": "{query}"}}}', "inside a longer text"),
        ('{"query": {"match": {"t": "{query}"}}, "size": 3}', "must not set size"),
    ],
)
def test_a_file_that_is_no_template_is_one_sentence(text: str | None, why: str, tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(R1Error, match=why) as raised:
        open_retriever(f"es://127.0.0.1:9/x?fields=a&template={file}")
    assert "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 that only those trust who are given it, and its key."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl")
    folder = tmp_path_factory.mktemp("certificate")
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    made = ["openssl", *words.split(), "-keyout", str(folder / "key"), "-out", str(folder / "pem")]
    subprocess.run(made, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_text((folder / "key").read_text() + (folder / "pem").read_text())
    return both


@pytest.mark.parametrize(("scheme", "prefix"), [("es", "R1S_ELASTICSEARCH"), ("opensearch", "R1S_OPENSEARCH")])
def test_https_with_the_users_own_authority(
    scheme: str, prefix: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if scheme == "opensearch":
        pytest.importorskip("opensearchpy", reason="needs the extra [opensearch]")
    given: list[str | None] = []

    async def reply(request: Request) -> JSONResponse:
        given.append(request.headers.get("authorization"))
        found = {"timed_out": False, "_shards": {"failed": 0}, "hits": {"hits": [HIT]}, "status": 200}
        body = {"/wiki/_count": {"count": 1}, "/_msearch": {"responses": [found]}}.get(request.url.path, STATES)
        return JSONResponse(body, headers={"X-Elastic-Product": "Elasticsearch"})

    monkeypatch.setenv(f"{prefix}_USER", "me")
    monkeypatch.setenv(f"{prefix}_PASSWORD", "geheim-1234")
    with http_server([Route("/{path:path}", reply, methods=["GET", "POST"])], certificate=certificate) as server:
        url = server.replace("https:", f"{scheme}+https:") + "/wiki?fields=headline"
        with pytest.raises(RetrieverError, match=f"is not trusted .*set {prefix}_CA to its authority") as raised:
            run(url)
        assert not raised.value.transient
        assert given == [], "no password before the certificate is trusted"
        monkeypatch.setenv(f"{prefix}_CA", str(certificate))
        assert [hit.passage.id for hit in run(url)[0]] == ["a"]
    assert set(given) == {"Basic " + base64.b64encode(b"me:geheim-1234").decode()}
