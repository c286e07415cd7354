"""Which kind of search engine a URL names, and what each kind declares."""

from pathlib import Path

import pytest

from r1searcher.errors import InputError
from r1searcher.retrieval.engines.bm25 import Settings as Bm25
from r1searcher.retrieval.indexing.base import INDEXERS, IndexOptions, open_indexer
from r1searcher.retrieval.registry import RETRIEVERS, described, kind_of, settings_of, settings_of_table


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("index", "bm25"),
        ("index/", "bm25"),
        ("file:index/", "bm25"),
        ("a:b/index", "bm25"),
        ("weg:serper", "bm25"),
        ("web:serper", "web"),
        ("", "bm25"),
        ("es://host:9200/name", "es"),
        ("es+https://host/name", "es"),
        ("opensearch://host:9200/name", "opensearch"),
        ("opensearch+https://host/name", "opensearch"),
        ("http://host/retrieve", "http"),
        ("https://host/queries", "http"),
    ],
)
def test_the_scheme_of_a_url_is_its_kind(url: str, kind: str) -> None:
    assert kind_of(url) == kind
    assert settings_of(url).kind == kind
    assert settings_of(url).url == url


@pytest.mark.parametrize("url", ["ftp://h/x", "://", "mine://x", "../x://y"])
def test_an_unknown_scheme_says_what_there_is(url: str) -> None:
    with pytest.raises(InputError, match="is not a retriever: give a folder, es://host:9200/name or http://"):
        kind_of(url)


def test_a_folder_may_have_any_name() -> None:
    assert isinstance(settings_of("file:a\udcff\n"), Bm25)
    assert settings_of("x" * 5000).url == "x" * 5000


def test_every_kind_is_named_as_it_is_registered_and_lists_its_keys() -> None:
    for name in RETRIEVERS.builtin:
        assert RETRIEVERS[name].model_fields["kind"].default == name
    keys = {"API_KEY", "USER", "PASSWORD", "CA"}
    assert set(settings_of("es://h/x").environment) == {f"R1S_ELASTICSEARCH_{key}" for key in keys}
    assert set(settings_of("opensearch://h/x").environment) == {f"R1S_OPENSEARCH_{k}" for k in keys - {"API_KEY"}}
    assert settings_of("index").environment == settings_of("http://h/retrieve").environment == ()


def test_a_manifest_shows_no_secret_of_a_url() -> None:
    engine = settings_of_table("http", {"url": "http://h/retrieve?token=geheim", "timeout_s": 3.0})
    assert described(engine) == {"kind": "http", "url": "http://h/retrieve?token=…", "timeout_s": 3.0}


def test_what_can_be_filled_is_a_registry_too(tmp_path: Path) -> None:
    assert set(INDEXERS.builtin) < set(RETRIEVERS.builtin)
    assert open_indexer(f"file:{tmp_path}", IndexOptions()).folder == tmp_path
    for url in ("es://h/x", "opensearch+https://h/x"):
        assert open_indexer(url, IndexOptions()).folder is None
    with pytest.raises(InputError, match="cannot be filled"):
        open_indexer("http://h/retrieve", IndexOptions())
