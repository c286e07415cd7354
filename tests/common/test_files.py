"""Files: one sentence per failure, atomic writes."""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from r1searcher.common import files
from r1searcher.errors import FileError, InputError


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing", "does not exist"),
        ("folder", "is a folder"),
        ("pipe", "is not a regular file"),
        ("latin1", "not UTF-8"),
        ("x" * 300, "not a valid file name"),
        ("a\0b", "not a valid file name"),
        ("latin1/below", "does not exist"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "latin1").write_bytes("é".encode("latin-1"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=said):
        files.read_text(tmp_path / name, "the settings file")


@pytest.mark.parametrize("text", ["{", "[" * 200_000, "1" * 5000, '{"a": NaN}', "[Infinity]", '"\\ud800', b"\xff", ""])
def test_bad_json_is_a_value_error_with_a_reason(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        files.parse_json(text)


def test_lines_end_at_line_feeds_only() -> None:
    assert files.split_lines('{"a": "x\u2028y\x85"}\n{}\n') == ['{"a": "x\u2028y\x85"}', "{}"]
    assert files.split_lines("") == []
    assert files.split_lines("a\n\nb") == ["a", "", "b"]


def test_a_full_disk_is_one_sentence_and_keeps_what_was_there() -> None:
    with pytest.raises(FileError, match="disk is full"):
        files.append_row(Path("/dev/full"), {"a": 1})


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.json"
    files.write_json(target, {"a": 1})

    def fail(self: Path, other: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(FileError, match="disk is full"):
        files.write_json(target, {"a": 2})
    assert target.read_text("utf-8") == '{\n  "a": 1\n}\n'
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def write_often(path: Path, text: str) -> None:
    for _ in range(200):
        files.write_text(path, text)


def test_a_file_that_several_processes_write_is_that_of_one_of_them(tmp_path: Path) -> None:
    """The reason why a run stopped is written by every rollout process, on any node."""
    texts = {letter * 10_000 for letter in "abcd"}
    with ProcessPoolExecutor(len(texts), get_context("spawn")) as pool:
        for done in [pool.submit(write_often, tmp_path / "file", text) for text in texts]:
            done.result()
    assert (tmp_path / "file").read_text() in texts
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R1S_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert files.cache_folder("a") == Path("/xdg/r1searcher/a")
    monkeypatch.setenv("R1S_CACHE", "/ours")
    assert files.cache_folder("a") == Path("/ours/a")
