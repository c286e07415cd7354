"""Model folders that are refused. Training packages are not needed."""

import json
from pathlib import Path
from typing import Any

import pytest

from r1searcher.errors import InputError
from r1searcher.models.folder import local_model


def make_model(folder: Path, config: dict[str, Any] | None = None, weights: str = "model.safetensors") -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config or {"model_type": "qwen2"}))
    (folder / weights).touch()
    return str(folder)


def test_a_model_that_brings_code_is_refused_unless_allowed(tmp_path: Path) -> None:
    model = make_model(tmp_path / "m", {"auto_map": {"AutoModel": "modeling_x.X"}})
    with pytest.raises(InputError, match="trust_remote_code"):
        local_model(model)
    assert local_model(model, trust_remote_code=True) == tmp_path / "m"


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pickle"):
        local_model(make_model(tmp_path / "m", weights="pytorch_model.bin"))


def test_a_folder_without_a_model_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"it has no config\.json"):
        local_model(str(tmp_path))
