"""A folder with a manifest is resumed by the same command, and refused for any other."""

import json
from pathlib import Path
from typing import Any

import pytest

from r1searcher.common.manifest import Kind, resumes
from r1searcher.common.records import Record
from r1searcher.errors import InputError

KIND = Kind(noun="kite", damaged="fly another", another="rm -r {folder}")


class Kite(Record):
    color: str


def written(folder: Path, manifest: Any) -> Path:
    file = folder / "manifest.json"
    file.write_text(json.dumps(manifest))
    return file


def test_a_new_folder_is_not_resumed(tmp_path: Path) -> None:
    assert not resumes(tmp_path / "manifest.json", Kite, {"color": "red"}, KIND)


def test_equal_manifests_resume_and_tuples_are_lists(tmp_path: Path) -> None:
    file = written(tmp_path, {"color": "red", "tails": [1, 2], "older": "key"})
    assert resumes(file, Kite, {"color": "red", "tails": (1, 2)}, KIND)


def test_every_difference_is_named_and_only_the_given_keys_count(tmp_path: Path) -> None:
    file = written(tmp_path, {"color": "red", "size": 1, "created": "today"})
    other = {"color": "blue", "size": 2, "created": "tomorrow"}
    with pytest.raises(InputError) as error:
        resumes(file, Kite, other, KIND, ("color", "size"))
    assert str(error.value) == f"{tmp_path} holds another kite (different: color, size): rm -r {tmp_path}"
    assert resumes(file, Kite, {**other, "color": "red"}, KIND, ("color",))
    with pytest.raises(InputError, match=r"different: created\)"):
        resumes(file, Kite, {"color": "red", "size": 1, "created": "tomorrow"}, KIND)


def test_a_key_that_the_folder_lacks_is_a_difference(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"different: wind\)"):
        resumes(written(tmp_path, {"color": "red"}), Kite, {"color": "red", "wind": 3}, KIND)


def test_a_damaged_manifest_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"manifest\.json is damaged .*fly another"):
        resumes(written(tmp_path, {"color": 5}), Kite, {"color": "red"}, KIND)
