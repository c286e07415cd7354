"""Passages by id."""

import asyncio
import json
import shutil
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import pytest
import tantivy

from r1searcher.corpora.passage import Passage
from r1searcher.retrieval import open_retriever
from r1searcher.retrieval.base import NoLookupError, Retriever, passage_of
from r1searcher.retrieval.indexing.base import IndexOptions
from r1searcher.retrieval.indexing.bm25 import build
from r1searcher.retrieval.indexing.elasticsearch import load
from r1searcher.retrieval.indexing.manifest import encode
from tests.retrieval.nodes import Server
from tests.retrieval.scripted import Scripted

LONG = "é" * 9_000
PASSAGES = [
    *(Passage(str(n), f"Title {n}", f"Text {n}.") for n in range(500)),
    *(Passage("300", "Again", f"Text {n}.") for n in range(50)),
    Passage("https://example.org/å b?x=1#y", "A URL", "Text."),
    Passage("The capital OF", "Words", "Text."),
    Passage(LONG, "A long id", "Text."),
]
CASES = {
    "7": "Title 7",
    "499": "Title 499",
    "300": "Title 300",
    "https://example.org/å b?x=1#y": "A URL",
    "The capital OF": "Words",
    "the capital of": None,
    "capital": None,
    "500": None,
    "": None,
    "*": None,
    "a\0b": None,
}


def titles(retriever: Retriever, ids: Sequence[str]) -> list[str | None]:
    async def run() -> list[str | None]:
        async with aclosing(retriever):
            found = [await passage_of(retriever, id_) for id_ in ids]
        assert all(passage is None or passage.id == id_ for passage, id_ in zip(found, ids, strict=True))
        return [passage and passage.title for passage in found]

    return asyncio.run(run())


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lookup") / "ix"
    build(PASSAGES, path, threads=2, commit_every=100)
    return path


@pytest.mark.parametrize("chain", ["", " -> cache:{}/c.sqlite"])
def test_the_embedded_index_gives_the_first_passage_with_an_id(chain: str, index: Path, tmp_path: Path) -> None:
    retriever = open_retriever(f"{index}{chain.format(tmp_path)}")
    assert titles(retriever, [*CASES, LONG]) == [*CASES.values(), "A long id"]


@pytest.mark.elasticsearch
def test_elasticsearch_gives_the_first_passage_with_an_id(node: Server) -> None:
    load(PASSAGES, node.url("lookup"), IndexOptions(shards=3))
    assert titles(open_retriever(node.url("lookup")), list(CASES)) == list(CASES.values())
    assert titles(open_retriever(node.url("lookup")), [LONG]) == [None], "Lucene does not index terms of that length"


@pytest.mark.elasticsearch
def test_an_index_from_elsewhere_is_asked_by_its_own_ids(node: Server) -> None:
    fields = {"number": {"type": "keyword"}, "words": {"type": "text"}, "text": {"type": "text"}}
    documents = {
        id_: {"number": number, "words": number, "text": "Text."} for id_, number in (("a1", "No. 1"), ("b", "No. 2"))
    }
    node.fill("lookup-elsewhere", fields, documents)
    url = f"{node.url('lookup-elsewhere')}?fields=number,text"
    assert titles(open_retriever(url), ["b", "a1", "a", "No. 1", ""]) == ["No. 2", "No. 1", None, None, None]
    assert titles(open_retriever(f"{url}&id=number"), ["No. 2", "No.", "no. 2"]) == ["No. 2", None, None]
    with pytest.raises(NoLookupError):
        titles(open_retriever(f"{url}&id=words"), ["No. 2"])


def test_an_index_that_was_built_without_ids_has_no_lookup(index: Path, tmp_path: Path) -> None:
    shutil.copytree(index, tmp_path / "ix")
    shutil.rmtree(tmp_path / "ix/tantivy")
    (tmp_path / "ix/tantivy").mkdir()
    (tmp_path / "ix/checksums.json").unlink()
    manifest = json.loads((tmp_path / "ix/manifest.json").read_text())
    (tmp_path / "ix/manifest.json").write_text(json.dumps({**manifest, "passages": 1}))
    schema = tantivy.SchemaBuilder()
    schema.add_unsigned_field("ordinal", fast=True)
    schema.add_bytes_field("passage", stored=True)
    schema.add_text_field("terms", tokenizer_name="whitespace", index_option="freq")
    old = tantivy.Index(schema.build(), str(tmp_path / "ix/tantivy"))
    writer = old.writer()
    document = tantivy.Document()
    document.add_unsigned("ordinal", 0)
    document.add_bytes("passage", encode(PASSAGES[0]))
    document.add_text("terms", "titl 0")
    writer.add_document(document)
    writer.commit()
    retriever = open_retriever(str(tmp_path / "ix"))
    [found] = asyncio.run(retriever.search(["title"], 1))
    assert found.require_hits()[0].passage == PASSAGES[0]
    with pytest.raises(NoLookupError):
        titles(retriever, ["0"])


def test_engines_without_a_lookup_say_so(index: Path) -> None:
    for retriever in (Scripted({}), open_retriever(f"{index} + {index} -> fusion")):
        with pytest.raises(NoLookupError, match="cannot look up a passage by its id"):
            titles(retriever, ["7"])
