"""Loading a tokenizer: what is there is loaded as transformers does it; what is not is one sentence."""

import json
from pathlib import Path

import pytest

from r1searcher.episodes.tokens import load_tokenizer, may_be_on_hub
from r1searcher.errors import InputError
from tests.episodes.conftest import SENTENCES, byte_level_bpe


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    byte_level_bpe(reserved_tags=True)._tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_a_folder_gives_the_tokenizer_that_was_saved_there(folder: Path) -> None:
    saved, loaded = byte_level_bpe(reserved_tags=True)._tokenizer, load_tokenizer(folder)
    assert [loaded(text)["input_ids"] for text in SENTENCES] == [saved(text)["input_ids"] for text in SENTENCES]


@pytest.mark.parametrize("damage", ["{", '{"model": 3}', "[]", "\x00", ""])
def test_a_damaged_tokenizer_is_one_sentence(folder: Path, damage: str) -> None:
    (folder / "tokenizer.json").write_text(damage)
    with pytest.raises(InputError, match="no tokenizer can be loaded from ") as raised:
        load_tokenizer(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["nowhere/at/all", "", "a b", "\x00"])
def test_a_place_without_a_tokenizer_is_one_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="no tokenizer can be loaded from ") as raised:
        load_tokenizer(name)
    assert "\n" not in str(raised.value)


def test_code_that_comes_with_a_tokenizer_is_refused_and_not_run(folder: Path) -> None:
    (folder / "own.py").write_text("import pathlib\npathlib.Path(__file__).with_name('ran').touch()\nclass Own: pass\n")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="custom code"):
        load_tokenizer(folder)
    assert not list(folder.rglob("ran"))


@pytest.mark.parametrize(
    ("name", "possible"),
    [
        ("SmolLM2", True),
        ("owner/name", True),
        ("folder/name", True),
        ("file/name", False),
        ("file", False),
        ("folder", False),
        ("a/b/c", False),
        ("./name", False),
        ("/name", False),
        ("~/name", False),
    ],
)
def test_a_hub_name_is_distinguished_from_a_path(
    name: str, possible: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is called like an owner on the hub hides none of the owner's models."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    assert may_be_on_hub(name) is possible
