"""A corpus format of somebody else, exactly as CONTRIBUTING.md has it, in `r1s index-corpus`."""

import gzip
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from r1searcher.corpora.contract import check_corpus_format
from tests import extension

BLOCKS = extension.blocks("Add a corpus format")
NOTES = b"#notes\nOslo :: A town at the end of a fjord.\n\nBergen :: A town with rain.\n"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    entry_points = tomllib.loads(BLOCKS["my_format.toml"])["project"]["entry-points"]
    return extension.install(tmp_path / "site", {"my_format": BLOCKS["my_format.py"]}, entry_points)


def output(package: Path, *arguments: object) -> str:
    return extension.finished(extension.r1s(arguments, package))


def test_it_has_at_most_20_lines_of_code_and_keeps_the_contract() -> None:
    source = BLOCKS["my_format.py"]
    assert extension.code_lines(source) <= 20
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    check_corpus_format(namespace["NOTES"], NOTES, passages=2)


@pytest.mark.parametrize("ending", ["txt", "txt.gz"])
def test_a_file_is_recognized(package: Path, tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"notes.{ending}"
    file.write_bytes(gzip.compress(NOTES) if ending.endswith("gz") else NOTES)
    output(package, "index-corpus", file, "--to", tmp_path / "index")
    found = json.loads(output(package, "search", tmp_path / "index", "rain", "--json"))
    assert [hit for hit, _ in found] == ["4"], "the id is the line"


def test_it_can_be_named_and_bad_rows_are_kept_apart(package: Path, tmp_path: Path) -> None:
    file = tmp_path / "other.txt"
    file.write_bytes(b"first line\nOslo :: A town.\n\xff\nBergen :: A bay.\n")
    rejects = tmp_path / "rejects.jsonl"
    output(package, "index-corpus", file, "--to", tmp_path / "index", "--format", "notes", "--rejects", rejects)
    found = json.loads(output(package, "search", tmp_path / "index", "town", "--json"))
    assert [hit for hit, _ in found] == ["2"]
    (bad,) = (json.loads(line) for line in rejects.read_text().splitlines())
    assert (bad["file"], bad["line"]) == (str(file), 3)
    assert "invalid start byte" in bad["reason"]


def test_a_wrong_name_is_answered_with_the_nearest(package: Path, tmp_path: Path) -> None:
    (tmp_path / "n.txt").write_bytes(NOTES)
    arguments = ["index-corpus", str(tmp_path / "n.txt"), "--to", str(tmp_path / "index"), "--format", "note"]
    done = extension.r1s(arguments, package)
    assert done.returncode == 2
    assert "--format: there is no corpus format 'note' (did you mean 'notes'?)" in " ".join(done.stderr.split())
