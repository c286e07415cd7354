"""Chains of retrievers: their URLs and tables, what they declare, and what a run and a manifest keep of them."""

import tomllib
from pathlib import Path

import pytest

from r1searcher.config.settings import load
from r1searcher.errors import InputError
from r1searcher.retrieval.base import EngineSettings
from r1searcher.retrieval.links.cache import Settings as Cache
from r1searcher.retrieval.links.fusion import Settings as Fusion
from r1searcher.retrieval.registry import described, links, settings_of, settings_of_table


def test_a_chain_is_read_from_left_to_right() -> None:
    cache = settings_of("index + es://host/name -> fusion:0.7,0.3 -> cache:replay:kept.sqlite")
    assert isinstance(cache, Cache)
    assert (cache.mode, cache.file) == ("replay", "kept.sqlite")
    assert isinstance(cache.of, Fusion)
    assert (cache.of.method, cache.of.weights) == ("scores", (0.7, 0.3))
    assert [(one.kind, one.url) for one in cache.of.of] == [("bm25", "index"), ("es", "es://host/name")]
    assert cache.shown == "index + es://host/name -> fusion:0.7,0.3 -> cache:replay:kept.sqlite"
    assert settings_of("a + b -> fusion").model_dump()["method"] == "rrf"


def test_a_table_is_the_same_chain() -> None:
    table = tomllib.loads("""
        kind = "cache"
        file = "kept.sqlite"
        [of]
        kind = "fusion"
        weights = [2, 1]
        of = ["index", {kind = "http", url = "http://host/retrieve", timeout_s = 3.0}]
    """)
    cache = settings_of_table(table.pop("kind"), table)
    assert isinstance(cache, Cache)
    assert isinstance(cache.of, Fusion)
    assert cache.of.weights == (2.0, 1.0)
    first, second = cache.of.of
    assert (first.kind, second.model_dump()["timeout_s"]) == ("bm25", 3.0)


def test_a_chain_declares_the_variables_of_all_its_parts() -> None:
    variables = settings_of("index + es://host/name -> fusion -> cache:x").variables
    assert set(variables) == set(settings_of("es://host/name").variables) != set()


def test_a_manifest_shows_no_secret_of_any_part() -> None:
    url = "http://me:geheim@h/retrieve?token=geheim + es://me:geheim@h/name -> fusion -> cache:x"
    engine = settings_of(url)
    for text in (str(described(engine)), engine.shown):
        assert "geheim" not in text
        assert "h/retrieve?token=…" in text


def test_settings_with_a_chain_can_be_loaded_made_absolute_and_loaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "settings.toml"
    file.write_text('[retrieval]\nurl = "a + b -> fusion -> cache:c.sqlite"\nretry_timeout_s = 5.0\n')
    retrieval = load("stage1", file).retrieval
    there = retrieval.absolute()
    assert there.retry_timeout_s == 5.0
    engine = there.engine
    assert engine.shown == f"{tmp_path}/a + {tmp_path}/b -> fusion -> cache:c.sqlite"
    assert isinstance(engine, Cache)
    assert engine.file == str(tmp_path / "c.sqlite")
    assert there.absolute().engine == engine
    assert settings_of_table(engine.kind, engine.model_dump(mode="json", exclude_unset=True)) == engine


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("a -> nothing", r"'nothing' after -> is not a link; choose one of .*fusion"),
        ("a -> es://host/name", "is not a link"),
        ("a -> fusion", "fusion needs at least two retrievers, as in A [+] B"),
        ("a + b -> cache:x", "cache needs one retriever: put `-> fusion` before it"),
        ("a + b -> fusion:1", "1 weights for 2 retrievers"),
        ("a + b -> fusion:0,0", "all weights are 0"),
        ("a + b -> fusion:x", "is not fusion:WEIGHT,WEIGHT"),
        ("a -> cache", "file: field required"),
        ("ftp://x -> cache:x", "is not a retriever"),
        ("a + b -> ", "is not a link"),
    ],
)
def test_a_wrong_chain_is_one_sentence(url: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        settings_of(url)


def test_a_wrong_part_of_a_table_is_named(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('[retrieval]\nkind = "cache"\nfile = "x"\nof = {kind = "https"}\n')
    with pytest.raises(InputError, match="there is no retriever 'https'"):
        load("stage1", file)
    file.write_text('[retrieval]\nkind = "cache"\nfile = "x"\nof = 7\n')
    with pytest.raises(InputError, match="retrieval"):
        load("stage1", file)


def test_every_link_says_so() -> None:
    assert {"fusion", "cache"} <= set(links())
    assert not {"bm25", "es", "http"} & set(links())
    assert not EngineSettings.model_validate({"kind": "x"}).needs_episode
