"""R1-Searcher's released questions: from a folder, from a hub on this machine, and by their names.

The files served here are the first rows of the released ones (`tests/data/questions`), with checksums of their own.
"""

import hashlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from r1searcher.common import download
from r1searcher.common.retry import RetryPolicy
from r1searcher.errors import InputError, ServiceError
from r1searcher.questions.command import write_release
from r1searcher.questions.datasets import DATASETS, NamedDataset, PublishedFile
from r1searcher.questions.named import is_here, open_dataset
from tests.common.servers import answer, raw_server
from tests.shared_data import DATA, shared

REPOSITORY = "https://raw.githubusercontent.com/RUCAIBox/R1-Searcher/631167cbb3c2464f805730e3e364a690f5b136d4/data"
HUB = "/datasets/XXsongLALA/RAG-RL-Hotpotqa-with-2wiki/resolve/main"
PATHS = {
    "stage1": "training_set/stage_1.jsonl",
    "stage2": "training_set/stage_2.jsonl",
    "hotpotqa": "eval_set/hotpotqa_500.jsonl",
    "2wikimultihopqa": "eval_set/2wiki_500.jsonl",
    "musique": "eval_set/musique_500.jsonl",
    "bamboogle": "eval_set/bamboogle.jsonl",
}
NAMES = [Path(path).name for path in PATHS.values()]


def content(name: str) -> bytes:
    return (DATA / "questions" / name).read_bytes()


class Publisher:
    """A hub and a repository on one server. `changed` has the paths whose content is another one."""

    def __init__(self) -> None:
        self.changed: set[str] = set()
        self.missing: set[str] = set()
        self.asked: list[str] = []

    def __call__(self, connection: socket.socket, request: bytes) -> None:
        method, path = request.decode().split()[:2]
        if method == "GET":
            self.asked.append(path)
        found = content(Path(path).name) + b"\n" * (path in self.changed)
        (answer(b"", "404 Not Found") if path in self.missing else answer(found))(connection, request)


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Publisher]:
    """R1-Searcher's dataset with small files, whose hub and repository are a server on this machine."""
    released = DATASETS["r1-searcher"]
    with raw_server(publisher := Publisher()) as server:
        splits: dict[str, PublishedFile] = {}
        for split, source in released.splits.items():
            assert isinstance(source, PublishedFile)
            urls = tuple(url.replace(REPOSITORY, f"{server.url}/repository") for url in source.urls)
            sha256 = hashlib.sha256(content(Path(source.path).name)).hexdigest()
            splits[split] = replace(source, urls=urls, sha256=sha256)
        monkeypatch.setitem(DATASETS._loaded, "r1-searcher", NamedDataset(splits))
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("R1S_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(download, "RETRIES", RetryPolicy(tries=1))
        yield publisher


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A folder with the release's own layout."""
    for path in PATHS.values():
        file = tmp_path / "release" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(DATA / "questions" / file.name, file)
    return tmp_path / "release"


def written(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_training_sets_come_from_the_hub_and_the_others_from_the_repository(
    publisher: Publisher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):  # the second time nothing is downloaded, and the files that are there stay
        write_release(tmp_path / "to", None)
    assert written(tmp_path / "to") == {name: content(name) for name in NAMES}
    assert publisher.asked == [
        f"{HUB}/stage_1.jsonl",
        f"{HUB}/stage_2.jsonl",
        *(f"/repository/{path}" for split, path in PATHS.items() if not split.startswith("stage")),
    ]
    said = capsys.readouterr().out
    assert f"r1-searcher:stage1: 60 questions in {tmp_path / 'to' / 'stage_1.jsonl'}\n" in said
    assert "r1-searcher:stage2: 64 questions" in said
    assert "questions have only gold answers of more than 10 words" in said


@pytest.mark.parametrize("fault", ["missing", "changed"])
def test_a_hub_without_the_published_file_is_replaced_by_the_repository(
    publisher: Publisher, tmp_path: Path, fault: str
) -> None:
    getattr(publisher, fault).add(f"{HUB}/stage_2.jsonl")
    assert len(open_dataset("r1-searcher:stage2", training=True).questions) == 64
    assert publisher.asked == [f"{HUB}/stage_2.jsonl", "/repository/training_set/stage_2.jsonl"]
    assert is_here("r1-searcher:stage2")


def test_files_that_are_not_the_published_ones_are_never_written(publisher: Publisher, tmp_path: Path) -> None:
    publisher.changed = {f"{HUB}/stage_1.jsonl", "/repository/training_set/stage_1.jsonl"}
    with pytest.raises(ServiceError, match=r"stage_1\.jsonl does not have the sha256 .*; give a folder") as raised:
        write_release(tmp_path / "to", None)
    assert "\n" not in str(raised.value)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_a_hub_that_cannot_be_reached_is_one_sentence_with_both_addresses(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    publisher.missing = {"/repository/training_set/stage_1.jsonl"}
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1:9/.* refused.*; .*/repository/.* status 404") as raised:
        write_release(tmp_path / "to", None)
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == 1


def test_a_folder_of_the_release_is_read_without_a_network(
    publisher: Publisher, release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (release / PATHS["musique"]).unlink()
    write_release(tmp_path / "to", release)
    assert written(tmp_path / "to") == {name: content(name) for name in NAMES if name != "musique_500.jsonl"}
    assert f"r1-searcher:musique: not in {release}" in capsys.readouterr().out
    write_release(tmp_path / "again", tmp_path / "to")  # what was written is a folder of the release too
    assert written(tmp_path / "again") == written(tmp_path / "to")
    assert publisher.asked == []


def test_a_changed_file_of_the_folder_is_refused(publisher: Publisher, release: Path, tmp_path: Path) -> None:
    with (release / PATHS["stage2"]).open("a") as file:
        file.write('{"question": "Who?", "answer": "Ada"}\n')
    with pytest.raises(InputError, match=r"stage_2\.jsonl is not the published file of r1-searcher:stage2"):
        write_release(tmp_path / "to", release)
    with pytest.raises(InputError, match="is not the published file"):
        open_dataset("r1-searcher:stage2", release, training=True)
    assert len(open_dataset(str(release / PATHS["stage2"])).questions) == 65  # as a file of one's own


def test_training_sets_must_be_in_the_folder(publisher: Publisher, release: Path, tmp_path: Path) -> None:
    (release / PATHS["stage2"]).unlink()
    with pytest.raises(InputError, match=r"does not contain r1-searcher:stage2: looked for training_set/"):
        write_release(tmp_path / "to", release)
    with pytest.raises(InputError, match="is not a folder"):
        write_release(tmp_path / "to", tmp_path / "nowhere")


def test_another_file_is_not_replaced(publisher: Publisher, release: Path, tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "stage_1.jsonl").write_text("mine\n")
    with pytest.raises(InputError, match=r"stage_1\.jsonl exists and is another file"):
        write_release(tmp_path / "to", release)
    assert written(tmp_path / "to") == {"stage_1.jsonl": b"mine\n"}


def test_a_training_names_its_stage(publisher: Publisher, release: Path) -> None:
    with pytest.raises(InputError, match=r"has no training split: give r1-searcher:stage1 or r1-searcher:stage2 or"):
        open_dataset("r1-searcher", release, training=True)
    assert open_dataset("r1-searcher:stage1", release, strict=True, training=True).name == "r1-searcher:stage1"


@pytest.mark.shared
def test_the_release_has_as_many_questions_as_the_paper_says(tmp_path: Path) -> None:
    """arXiv 2503.05592, section 3.3: 200 + 150 questions of HotpotQA and 2WikiMultihopQA, then 4,561 + 3,587."""
    folder = shared("data/r1-searcher")
    counts = {split: len(open_dataset(f"r1-searcher:{split}", folder, strict=True).questions) for split in PATHS}
    assert (counts.pop("stage1"), counts.pop("stage2")) == (200 + 150, 4561 + 3587)
    assert counts == {"hotpotqa": 500, "2wikimultihopqa": 500, "musique": 500, "bamboogle": 125}
    write_release(tmp_path / "to", folder)
    assert {name: len(data) for name, data in written(tmp_path / "to").items()} == {
        file.name: file.stat().st_size for path in PATHS.values() for file in [folder / path]
    }


@pytest.mark.shared
@pytest.mark.parametrize(("stage", "preset"), [("stage1", "paper-llama-8b"), ("stage2", "paper-qwen-7b")])
def test_a_stage_of_the_paper_has_its_questions(stage: str, preset: str, tmp_path: Path) -> None:
    """All problems are reported together: those of this machine and of the index, and none of the questions."""
    folder = shared("data/r1-searcher")
    words = (stage, "--preset", preset, "--retriever", "no-index", "--set", f"data.folder={folder}")
    command = [sys.executable, "-m", "r1searcher.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "no-index" in done.stderr
    assert "data.train" not in done.stderr
    assert "r1-searcher" not in done.stderr
