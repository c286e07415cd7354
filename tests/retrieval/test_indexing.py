"""Builds under bad conditions: two at once, killed holders, full and read-only disks, other users, damaged records."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1searcher.corpora.passage import Passage
from r1searcher.errors import FileError, InputError
from r1searcher.retrieval.engines.bm25 import EmbeddedIndex
from r1searcher.retrieval.indexing.base import IndexOptions
from r1searcher.retrieval.indexing.bm25 import build
from r1searcher.retrieval.indexing.manifest import Manifest, is_index

ATLAS = [Passage("a", "Oslo", "Oslo is the capital of Norway."), Passage("b", "Rome", "Rome is in Italy.")]


def rows(count: int) -> Iterator[Passage]:
    for n in range(count):
        yield Passage(str(n), f"title {n}", " ".join(f"w{n}x{k}" for k in range(40)))


HOLD = """
import pathlib, sys
from r1searcher.corpora.passage import Passage
from r1searcher.retrieval.indexing.bm25 import build

def passages():
    yield Passage("a", "Oslo", "Oslo is the capital of Norway.")
    print("building", flush=True)
    sys.stdin.read()

build(passages(), pathlib.Path(sys.argv[1]))
"""


@pytest.fixture
def other_build(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that builds `ix` until its input ends."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "ix")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "building\n"
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("restart", [False, True])
def test_a_folder_that_another_process_builds_is_refused(
    tmp_path: Path, other_build: subprocess.Popen[str], restart: bool
) -> None:
    sentence = rf"ix is being built by process {other_build.pid} on .* since .*: wait for it, end it, or choose another"
    with pytest.raises(InputError, match=sentence):
        build(ATLAS, tmp_path / "ix", IndexOptions(restart=restart))
    assert other_build.stdin is not None
    other_build.stdin.close()
    assert other_build.wait(60) == 0
    assert EmbeddedIndex(tmp_path / "ix").manifest.passages == 1, "the refused build took nothing from the other"
    assert not (tmp_path / "ix" / "building.lock").exists()


def test_a_killed_build_holds_nothing(tmp_path: Path, other_build: subprocess.Popen[str]) -> None:
    other_build.send_signal(signal.SIGKILL)
    assert other_build.wait(60) == -signal.SIGKILL
    assert build(ATLAS, tmp_path / "ix", IndexOptions(restart=True)).passages == 2
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["ix"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "r1s-test", str(path)], capture_output=True)
    if done.returncode:
        pytest.skip("may not mount a small file system here (needs root)")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk_is_one_sentence_and_the_same_build_goes_on(small_disk: Path) -> None:
    with pytest.raises(FileError, match=r"the disk is full: free some space; what is committed is kept; run the same"):
        build(rows(50_000), small_disk / "ix", commit_every=1000)
    assert not is_index(small_disk / "ix")
    progress = json.loads((small_disk / "ix.building/progress.json").read_text())
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    reported: list[int] = []
    manifest = build(rows(50_000), small_disk / "ix", commit_every=1000, on_progress=reported.append)
    assert manifest.passages == 50_000
    assert reported == list(range(1, 50_001))
    assert int(min(progress["digests"], key=int)) >= 1000, "something had been committed"
    index = EmbeddedIndex(small_disk / "ix")
    assert [index.search_one(f"w{n}x7", 2)[0].passage.id for n in (0, 999, 49_999)] == ["0", "999", "49999"]


def test_a_file_size_limit_is_one_sentence(tmp_path: Path) -> None:
    """A real fault that does not need privileges: no file may grow beyond 64 KB."""
    code = (
        "import resource, signal, sys, pathlib\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
        "from tests.retrieval.test_indexing import build, rows, FileError\n"
        "try: build(rows(20000), pathlib.Path(sys.argv[1]))\n"
        "except FileError as error: print(error)\n"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "ix")],
        capture_output=True, text=True, cwd=root, env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    assert "cannot be written: the file would be larger than is allowed here" in done.stdout, done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_a_read_only_disk_is_one_sentence(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(FileError, match="the file system is read-only: choose another location"):
        build(ATLAS, small_disk / "ix")


NOBODY = 65534


def as_nobody(code: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Python code in a process of another user, who may not read what only its owner may."""
    if os.geteuid():
        pytest.skip("only root can act as another user")
    root = str(Path(__file__).parents[2])
    setup = (
        "import os, sys, pathlib\n"
        "from r1searcher.errors import R1Error, FileError\n"
        "from r1searcher.retrieval.engines.bm25 import EmbeddedIndex\n"
        "from r1searcher.retrieval.indexing.bm25 import build\n"
        "from r1searcher.retrieval.indexing.manifest import is_index\n"
        "from r1searcher.corpora.passage import Passage\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "try: EmbeddedIndex(path).search_one('Oslo', 1)\n"  # imports what that user may not read
        "except R1Error: pass\n"
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
    )
    env = {**os.environ, "PYTHONPATH": root}
    return subprocess.run([sys.executable, "-c", setup + code, str(path)], capture_output=True, text=True, env=env)


def opened_to_all(path: Path) -> None:
    """pytest's temporary folders belong to their user alone."""
    while len(path.parts) > 2:
        path.chmod(0o755)
        path = path.parent


OPEN = "try: print([h.passage.id for h in EmbeddedIndex(path).search_one('Oslo', 1)])\nexcept FileError as e: print(e)"


def test_an_index_has_the_modes_of_the_umask_and_others_can_read_it(tmp_path: Path) -> None:
    opened_to_all(tmp_path)
    before = os.umask(0o022)
    try:
        build(ATLAS, tmp_path / "ix")
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "ix").rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"manifest.json", "meta.json", ".managed.json"}
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o644"}
    done = as_nobody(OPEN, tmp_path / "ix")
    assert done.stdout.strip() == "['a']", done.stderr


@pytest.mark.parametrize("hidden", ["", "manifest.json", "tantivy", "tantivy/meta.json"])
def test_an_index_that_may_not_be_read_is_not_called_damaged(tmp_path: Path, hidden: str) -> None:
    opened_to_all(tmp_path)
    build(ATLAS, tmp_path / "ix")
    (tmp_path / "ix" / hidden).chmod(0)
    done = as_nobody(OPEN, tmp_path / "ix")
    assert "cannot be read: permission denied" in done.stdout, done.stderr
    assert "damaged" not in done.stdout


def test_a_folder_without_write_permission_is_one_sentence(tmp_path: Path) -> None:
    opened_to_all(tmp_path)
    code = "try: build([Passage('a', 'b', 'c')], path)\nexcept FileError as e: print(e)"
    done = as_nobody(code, tmp_path / "ix")
    assert "ix.building cannot be written: permission denied: choose another location" in done.stdout, done.stderr


JUNK = [
    "",
    "{",
    "[]",
    "null",
    "7",
    '"x"',
    "[" * 100_000,
    "9" * 5000,
    '{"settings": 3, "digests": []}',
    "\x00\x01",
    "{}",
]


@pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
def test_a_damaged_progress_record_is_one_sentence(tmp_path: Path, junk: str) -> None:
    def interrupted() -> Iterator[Passage]:
        yield from ATLAS
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(interrupted(), tmp_path / "ix", commit_every=1)
    (tmp_path / "ix.building/progress.json").write_text(junk)
    with pytest.raises(InputError, match=r"progress.json is missing or damaged.*--restart"):
        build(ATLAS, tmp_path / "ix")
    assert build(ATLAS, tmp_path / "ix", IndexOptions(restart=True)).passages == 2


@pytest.mark.parametrize("name", ["meta.json", ".managed.json"])
def test_a_damaged_interrupted_build_is_one_sentence(tmp_path: Path, name: str) -> None:
    def interrupted() -> Iterator[Passage]:
        yield from ATLAS
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(interrupted(), tmp_path / "ix", commit_every=1)
    (tmp_path / "ix.building/tantivy" / name).write_text('{"half')
    with pytest.raises(InputError, match=r"ix.building contains a damaged interrupted build .*--restart"):
        build(ATLAS, tmp_path / "ix")


@pytest.mark.parametrize("junk", [*JUNK, '{"format": 2, "settings": [], "passages": "x"}', '{"format": 2}'])
def test_a_damaged_manifest_is_one_sentence(tmp_path: Path, junk: str) -> None:
    build(ATLAS, tmp_path / "ix")
    (tmp_path / "ix/manifest.json").write_text(junk)
    with pytest.raises(InputError, match=r"is damaged \(manifest.json.*build (it|the index) again"):
        EmbeddedIndex(tmp_path / "ix")


@pytest.mark.parametrize("row", [None, [], 3, {"format": 2, "settings": {"analyzer": 3}, "passages": -1}])
def test_a_manifest_of_another_shape_is_refused(row: object) -> None:
    with pytest.raises(InputError, match="x is damaged"):
        Manifest.from_json(row, "x")


@pytest.mark.parametrize("to", [".", "..", "/", "x" * 250, "a\0b", "file/ix"])
def test_targets_that_are_no_folder_of_their_own_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=re.compile("is not a valid name|current folder|is not a folder")):
        build(ATLAS, Path(to))
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_build_that_commits_nothing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not contain a passage"):
        build([], tmp_path / "ix")
    assert list(tmp_path.iterdir()) == []
