"""`r1s index push` and `pull`: folders, archives and the hub; archives that were tampered with; interruptions."""

import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError, ServiceError
from r1searcher.retrieval.engines.bm25 import EmbeddedIndex
from r1searcher.retrieval.indexing import integrity
from r1searcher.retrieval.indexing.bm25 import build
from r1searcher.retrieval.indexing.transfer import pull, push
from tests.retrieval.hub import KEY, Hub, running_hub
from tests.retrieval.serving import search

PASSAGES = [Passage(str(n), f"Town {n}", f"Town {n} lies on the river {n % 7}. " * 20) for n in range(2000)]
SUFFIXES = [".tar", ".tar.gz", ".tgz", ".tar.zst"]


def nothing(done: int, total: int) -> None: ...


def pushed(folder: Path, target: Path | str, overwrite: bool = False) -> None:
    push(folder, str(target), overwrite, nothing)


def pulled(source: Path | str, folder: Path, overwrite: bool = False) -> None:
    pull(str(source), folder, overwrite, nothing)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def listed(folder: Path) -> dict[str, bytes]:
    """The list of an index and the files in it: not, for example, tantivy's locks."""
    names = [*json.loads((folder / "checksums.json").read_text())["files"], "checksums.json"]
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("transfer") / "ix"
    build(PASSAGES, path, commit_every=700)
    return path


@pytest.fixture(scope="module")
def archive(index: Path) -> Path:
    path = index.parent / "ix.tar"
    pushed(index, path)
    return path


@pytest.mark.parametrize("target", ["there", "deep/there", *(f"there{suffix}" for suffix in SUFFIXES)])
def test_an_index_comes_back_as_it_was(
    target: str, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    push(index, str(tmp_path / target), False, lambda done, total: seen.append((done, total)))
    pull(str(tmp_path / target), tmp_path / "back", False, lambda done, total: seen.append((done, total)))
    assert contents(tmp_path / "back") == listed(index)
    assert (
        seen[-1][0] == seen[-1][1] == sum(len(data) for name, data in listed(index).items() if name != "checksums.json")
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({"back", target.partition("/")[0]})

    # Its times are those of the list, so that opening it does not read its files.
    monkeypatch.setattr(integrity, "_sha256", lambda descriptor: pytest.fail("a file was read"))
    EmbeddedIndex(tmp_path / "back")
    monkeypatch.undo()
    queries = ["town 17", "river 3"]
    assert search(str(tmp_path / "back"), queries) == search(str(index), queries)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_archive_depends_on_nothing_but_the_index(suffix: str, index: Path, tmp_path: Path) -> None:
    shutil.copytree(index, tmp_path / "copy", copy_function=shutil.copyfile)  # with other times
    pushed(index, tmp_path / f"a{suffix}")
    pushed(tmp_path / "copy", tmp_path / f"b{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_other_programs_read_the_archive(index: Path, tmp_path: Path) -> None:
    pushed(index, tmp_path / "a.tar.gz")
    pushed(index, tmp_path / "a.tar.zst")
    subprocess.run(["tar", "xzf", "a.tar.gz"], cwd=tmp_path, check=True)
    assert contents(tmp_path / "index") == listed(index)
    with zstandard.open(tmp_path / "a.tar.zst") as stream, tarfile.open(fileobj=io.BytesIO(stream.read())) as tar:
        assert {member.name.removeprefix("index/") for member in tar} == set(listed(index))


def test_an_index_of_another_kind_is_moved_too(tmp_path: Path) -> None:
    """Whatever a list names is moved: vectors in folders of folders, and an empty file."""
    files = {"manifest.json": b'{"kind": "other"}', "vectors/0/a.npy": b"x" * 3_000_000, "vectors/empty": b""}
    for name, data in files.items():
        (tmp_path / "ix" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "ix" / name).write_bytes(data)
    (tmp_path / "ix/checksums.json").write_bytes(listing(files))
    for target in ("ix.tar.zst", "copy"):
        pushed(tmp_path / "ix", tmp_path / target)
        pulled(tmp_path / target, tmp_path / f"back-{target}")
        assert contents(tmp_path / f"back-{target}") == contents(tmp_path / "ix")


def listing(files: dict[str, bytes]) -> bytes:
    rows = {
        name: {"size": len(data), "modified_ns": 1_700_000_000_123_456_789, "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in files.items()
    }
    return json.dumps({"files": rows}).encode()


def test_what_is_there_is_replaced_only_on_request(index: Path, archive: Path, tmp_path: Path) -> None:
    build(PASSAGES[:3], tmp_path / "other")
    before = contents(tmp_path / "other")
    shutil.copyfile(archive, tmp_path / "ix.tar")
    for attempt in (lambda: pulled(archive, tmp_path / "other"), lambda: pushed(index, tmp_path / "other")):
        with pytest.raises(InputError, match=r"already contains an index: .* add --overwrite"):
            attempt()
    with pytest.raises(InputError, match="already exists: choose another name, or add --overwrite"):
        pushed(tmp_path / "other", tmp_path / "ix.tar")
    assert contents(tmp_path / "other") == before
    assert (tmp_path / "ix.tar").read_bytes() == archive.read_bytes()

    pushed(tmp_path / "other", tmp_path / "ix.tar", overwrite=True)
    pulled(archive, tmp_path / "other", overwrite=True)
    assert contents(tmp_path / "other") == listed(index)
    pulled(tmp_path / "ix.tar", tmp_path / "third")
    assert EmbeddedIndex(tmp_path / "third").manifest.passages == 3

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("Dear")
    with pytest.raises(InputError, match="exists and is not an index"):
        pulled(archive, tmp_path / "mine", overwrite=True)
    assert contents(tmp_path / "mine") == {"letter.txt": b"Dear"}


@pytest.mark.parametrize("target", ["there", "there.tar.gz", "hf://datasets/me/ix"])
@pytest.mark.parametrize("damage", ["byte", "shorter", "longer", "missing", "manifest", "list", "no list"])
def test_a_damaged_or_unfinished_index_is_not_pushed(
    target: str, damage: str, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", KEY)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
    shutil.copytree(index, tmp_path / "ix")
    file = next((tmp_path / "ix/tantivy").glob("*.store"))
    times, data = file.stat(), bytearray(file.read_bytes())
    if damage == "byte":
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # by this alone it would be trusted
    elif damage == "shorter":
        file.write_bytes(data[:-1])
    elif damage == "longer":
        file.write_bytes(data + b"x")
    elif damage == "list":
        (tmp_path / "ix/checksums.json").write_text('{"files": {}}')
    else:
        names = {"missing": file.name, "manifest": "manifest.json", "no list": "checksums.json"}
        next((tmp_path / "ix").rglob(names[damage])).unlink()
    where = target if ":" in target else str(tmp_path / target)
    with pytest.raises(InputError) as raised:
        pushed(tmp_path / "ix", where)
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["ix"]


def test_a_pipe_is_not_waited_for(index: Path, tmp_path: Path) -> None:
    shutil.copytree(index, tmp_path / "ix")
    (tmp_path / "ix/manifest.json").unlink()
    os.mkfifo(tmp_path / "ix/manifest.json")
    with pytest.raises(InputError, match=r"manifest\.json is not a file"):
        pulled(tmp_path / "ix", tmp_path / "back")
    os.mkfifo(tmp_path / "ix.tar")
    with pytest.raises(InputError, match=r"ix\.tar is not a file"):
        pulled(tmp_path / "ix.tar", tmp_path / "back")


Entries = list[tuple[tarfile.TarInfo, bytes]]


def entries(archive: Path) -> Entries:
    with tarfile.open(archive) as tar:
        return [(member, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def written(path: Path, rows: Entries, format_: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format_) as tar:
        for info, data in rows:
            tar.addfile(info, io.BytesIO(data))
    return path


def relisted(rows: Entries, change: Callable[[dict[str, Any]], None]) -> Entries:
    """With another list of files."""
    table = json.loads(rows[0][1])
    change(table["files"])
    return [member("index/checksums.json", json.dumps(table).encode()), *rows[1:]]


def named(name: str) -> Callable[[Entries], Entries]:
    """One more file, which the list has too."""
    data = b"evil"
    row = {"size": 4, "modified_ns": 1, "sha256": hashlib.sha256(data).hexdigest()}
    return lambda rows: [*relisted(rows, lambda files: files.update({name: row})), member(f"index/{name}", data)]


TAMPERED: dict[str, tuple[Callable[[Entries], Entries], str]] = {
    "parent": (lambda rows: [*rows, member("index/../evil", b"evil")], "is not in checksums.json"),
    "parent, listed": (named("../evil"), "is not the name of an index file"),
    "deep parent, listed": (named("tantivy/../../evil"), "is not the name of an index file"),
    "absolute": (lambda rows: [*rows, member("/tmp/r1s-evil", b"evil")], "is not a file of an index"),
    "absolute, listed": (named("/tmp/r1s-evil"), "is not the name of an index file"),
    "other root": (lambda rows: [*rows, member("evil", b"evil")], "is not a file of an index"),
    "not listed": (lambda rows: [*rows, member("index/evil", b"evil")], "is not in checksums.json"),
    "twice": (lambda rows: [*rows, rows[-1]], "is there twice"),
    "list twice": (lambda rows: [*rows, rows[0]], "is not in checksums.json"),
    "list not first": (lambda rows: [*rows[1:], rows[0]], "does not begin with checksums.json"),
    "link": (lambda rows: [*rows, member("index/l", kind=tarfile.SYMTYPE, linkname="/etc")], "is not a file of an"),
    "listed link": (
        lambda rows: [*rows[:-1], member(rows[-1][0].name, kind=tarfile.SYMTYPE, linkname="/etc/passwd")],
        "is not a file of an index",
    ),
    "hard link": (lambda rows: [*rows, member("index/l", kind=tarfile.LNKTYPE, linkname="x")], "is not a file"),
    "device": (lambda rows: [*rows, member("index/d", kind=tarfile.CHRTYPE, devmajor=1)], "is not a file of an index"),
    "pipe": (lambda rows: [*rows, member("index/d", kind=tarfile.FIFOTYPE)], "is not a file of an index"),
    "long name": (lambda rows: [*rows, member("index/" + "x" * 300, b"evil")], "is not a file of an index"),
    "folders": (lambda rows: [*rows, *[member("index/d", kind=tarfile.DIRTYPE)] * 1000], "more than 1,000 folders"),
    "missing": (lambda rows: rows[:-1], "is missing"),
    "changed": (lambda rows: [*rows[:-1], member(rows[-1][0].name, b"\0" + rows[-1][1][1:])], "its checksum is wrong"),
    "shorter": (lambda rows: [*rows[:-1], member(rows[-1][0].name, rows[-1][1][1:])], "bytes instead of"),
    "longer": (lambda rows: [*rows[:-1], member(rows[-1][0].name, rows[-1][1] + b"x")], "bytes instead of"),
    "too large a list": (lambda rows: [member("index/checksums.json", b" " * (5 << 20))], "has 5,242,880 bytes"),
    "no JSON": (lambda rows: [member("index/checksums.json", b"{")], "checksums.json: "),
    "no manifest": (lambda rows: relisted(rows, lambda files: files.pop("manifest.json")), "does not list manifest"),
    "a checksum that is none": (
        lambda rows: relisted(rows, lambda files: files["manifest.json"].update(sha256="x")),
        "files.manifest.json.sha256",
    ),
    "negative": (lambda rows: relisted(rows, lambda files: files["manifest.json"].update(size=-1)), "greater than"),
    "more than fits": (lambda rows: relisted(rows, lambda f: f["manifest.json"].update(size=1 << 61)), "space"),
    "too many": (
        lambda rows: relisted(
            rows, lambda files: files.update({f"f{n}": files["manifest.json"] for n in range(10_001)})
        ),
        "at most 10000 items",
    ),
}


@pytest.mark.parametrize("tampered", TAMPERED)
def test_an_archive_that_was_tampered_with_leaves_nothing(tampered: str, archive: Path, tmp_path: Path) -> None:
    change, why = TAMPERED[tampered]
    evil = written(tmp_path / "evil.tar", change(entries(archive)))
    with pytest.raises(InputError, match=why) as raised:
        pulled(evil, tmp_path / "into" / "ix")
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.rglob("*")] == ["evil.tar", "into"] or not any((tmp_path / "into").iterdir())
    assert not Path("/tmp/r1s-evil").exists()


def test_headers_of_any_length_are_not_read(archive: Path, tmp_path: Path) -> None:
    """A header of a later format may have gigabytes, which Python's own reader would take into memory."""
    evil = written(tmp_path / "evil.tar", [member("index/" + "x" * 5000, b"evil")], tarfile.PAX_FORMAT)
    with pytest.raises(InputError, match="is not a file of an index"):
        pulled(evil, tmp_path / "ix")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_truncated_archive_is_refused_at_any_length(suffix: str, index: Path, tmp_path: Path) -> None:
    pushed(index, tmp_path / f"whole{suffix}")
    data = (tmp_path / f"whole{suffix}").read_bytes()
    for length in (0, 1, 5, 300, 512, 2000, len(data) // 2, len(data) - 2000):
        (tmp_path / "cut").write_bytes(data[:length])
        with pytest.raises(InputError):
            pulled(tmp_path / "cut", tmp_path / "ix")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["cut", f"whole{suffix}"]


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_small_archive_that_unpacks_to_a_large_one(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    head = member("index/checksums.json", b"")[0]
    head.size = 1 << 33
    (tmp_path / "bomb").write_bytes(pack(head.tobuf(tarfile.GNU_FORMAT) + bytes(64 << 20)))
    with pytest.raises(InputError, match=r"has 8,589,934,592 bytes"):
        pulled(tmp_path / "bomb", tmp_path / "ix")


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"PK\x03\x04" + bytes(600), b"\x1f\x8bxxxx", b"\x28\xb5\x2f\xfdxxxx"]
)
def test_something_else_is_not_an_archive(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.tar is not a whole index"):
        pulled(tmp_path / "x.tar", tmp_path / "ix")


KILLED = """
import os, signal, sys
from pathlib import Path
from r1searcher.retrieval.indexing import received, transfer
blocks, left = received.blocks_of, int(sys.argv[3])

def counted(*arguments):
    global left
    for block in blocks(*arguments):
        if left == 0:
            os.kill(os.getpid(), getattr(signal, sys.argv[4]))
        left -= 1
        yield block

received.blocks_of = counted
transfer.pull(sys.argv[1], Path(sys.argv[2]), False, lambda done, total: None)
"""


@pytest.mark.parametrize("source", ["archive", "folder"])
@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT"])
def test_an_interrupted_pull_leaves_nothing_at_the_target(
    source: str, how: str, index: Path, archive: Path, tmp_path: Path
) -> None:
    whole = archive if source == "archive" else index
    for blocks in (0, 1, 4):
        command = [sys.executable, "-c", KILLED, str(whole), str(tmp_path / "ix"), str(blocks), how]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode != 0, "it was interrupted"
        assert not (tmp_path / "ix").exists()
        if how == "SIGINT":
            assert list(tmp_path.iterdir()) == []
    pulled(whole, tmp_path / "ix")
    assert contents(tmp_path / "ix") == listed(index)
    assert [path.name for path in tmp_path.iterdir()] == ["ix"]


def test_one_pull_at_a_time(archive: Path, tmp_path: Path) -> None:
    program = "import sys; from r1searcher.retrieval.indexing.lock import build_lock; from pathlib import Path\n"
    program += "with build_lock(Path(sys.argv[1]), Path('x')): print('ready', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, str(tmp_path / "ix.pulling")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        with pytest.raises(InputError, match=rf"ix is being pulled by process {other.pid} on"):
            pulled(archive, tmp_path / "ix")
        other.communicate()
    pulled(archive, tmp_path / "ix")


def test_a_full_disk(archive: Path, tmp_path: Path) -> None:
    """The kernel prevents files from growing, as on a full disk."""
    program = """
import resource, sys
from r1searcher.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
main()
"""
    for words in (
        ["pull", str(archive), str(tmp_path / "ix")],
        ["push", str(archive.parent / "ix"), str(tmp_path / "a.tgz")],
    ):
        done = subprocess.run(
            [sys.executable, "-c", program, "index", *words], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 1, done.stderr
        assert "cannot be written: the file would be larger than is allowed here" in " ".join(done.stderr.split())
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["pull", "nowhere.tar", "ix"], "nowhere.tar does not exist"),
        (["pull", "s3://bucket/ix.tar", "ix"], "cannot be used: give a folder"),
        (["pull", "", "ix"], "cannot be used"),
        (["pull", ".", "ix"], "is not a whole index (checksums.json: "),
        (["push", "nowhere", "x.tar"], "nowhere is not a finished index"),
        (["push", "{index}", "{index}/inside.tar"], "is inside the index"),
        (["push", "{index}", "{index}/inside"], "is inside the index"),
        (["push", "{index}", "."], "is the current folder or one above it"),
        (["push", "{index}", "hf://datasets/me/x"], "needs a key that may write: set HF_TOKEN"),
        (["push", "{index}", "hf://me/x"], "is not of the form hf://datasets/OWNER/NAME"),
        (["pull", "hf://datasets/me/../x", "ix"], "is not of the form hf://datasets/OWNER/NAME"),
        (["pull", "hf://datasets/me/x@..", "ix"], "is not of the form hf://datasets/OWNER/NAME"),
    ],
)
def test_bad_input_is_one_sentence(words: list[str], why: str, index: Path, tmp_path: Path) -> None:
    words = [word.replace("{index}", str(index)) for word in words]
    before = contents(index)
    environment = {name: value for name, value in os.environ.items() if name != "HF_TOKEN"}
    command = [sys.executable, "-m", "r1searcher.cli", "index", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120)
    assert done.returncode == 2, done.stderr
    assert why in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert contents(index) == before


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as hub:
        for name, value in hub.environment().items():
            monkeypatch.setenv(name, value)
        yield hub


def r1s(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "r1searcher.cli", "index", *words], capture_output=True, text=True, timeout=300
    )


def test_the_hub(hub: Hub, index: Path, tmp_path: Path) -> None:
    done = r1s("push", str(index), "hf://datasets/me/wiki")
    assert done.returncode == 0, done.stderr
    assert hub.private == {"me/wiki": True}
    assert hub.repositories["me/wiki"]["main"] == listed(index)
    pulled("hf://datasets/me/wiki", tmp_path / "ix")
    assert contents(tmp_path / "ix") == listed(index)
    assert [path.name for path in tmp_path.iterdir()] == ["ix"]
    assert not any(has_key for where, _, has_key in hub.asked if where == "cdn"), "the key is for one host"
    EmbeddedIndex(tmp_path / "ix", thorough=True)

    build(PASSAGES[:5], tmp_path / "small")
    done = r1s("push", str(tmp_path / "small"), "hf://datasets/me/wiki")
    assert done.returncode == 2
    assert "already contains an index" in done.stderr
    hub.repositories["me/wiki"]["main"]["README.md"] = b"# Mine"
    assert r1s("push", str(tmp_path / "small"), "hf://datasets/me/wiki", "--overwrite").returncode == 0
    assert hub.repositories["me/wiki"]["main"] == {**listed(tmp_path / "small"), "README.md": b"# Mine"}

    assert r1s("push", str(index), "hf://datasets/me/wiki@v2").returncode == 0
    pulled("hf://datasets/me/wiki@v2", tmp_path / "ix2")
    assert contents(tmp_path / "ix2") == listed(index)


@pytest.fixture
def stored(hub: Hub, index: Path) -> Hub:
    hub.repositories["me/wiki"] = {"main": listed(index)}
    return hub


def test_an_interrupted_download_is_resumed(stored: Hub, index: Path, tmp_path: Path) -> None:
    """kill -9 in the middle; what arrived is not sent again."""
    program = """
import os, signal, sys
from pathlib import Path
from r1searcher.retrieval.indexing.transfer import pull
limit = int(sys.argv[3])
pull(sys.argv[1], Path(sys.argv[2]), False, lambda done, total: done > limit and os.kill(os.getpid(), signal.SIGKILL))
"""
    total = sum(map(len, listed(index).values()))
    command = [sys.executable, "-c", program, "hf://datasets/me/wiki", str(tmp_path / "ix"), str(total // 2)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["ix.pulling"]
    with pytest.raises(InputError, match="is not whole: run the `r1s index pull` that was interrupted again"):
        EmbeddedIndex(tmp_path / "ix")
    there = contents(tmp_path / "ix.pulling")
    kept = {name for name, data in listed(index).items() if there.get(name) == data}
    [part] = [data for name, data in there.items() if name.endswith(".part")]
    assert part
    stored.asked.clear()
    stored.sent = 0
    pulled("hf://datasets/me/wiki", tmp_path / "ix")
    assert contents(tmp_path / "ix") == listed(index)
    asked = {request.split("/resolve/main/")[1] for where, request, _ in stored.asked if where == "hub"}
    assert asked.isdisjoint(kept - {"checksums.json"})
    by_cdn = sum(len(data) for name, data in listed(index).items() if name not in kept and not name.endswith(".json"))
    assert stored.sent == by_cdn - len(part), "the part was continued"


def test_an_empty_file_on_the_hub(hub: Hub, tmp_path: Path) -> None:
    files = {"manifest.json": b"{}", "vectors/empty": b""}
    hub.repositories["me/other"] = {"main": {**files, "checksums.json": listing(files)}}
    pulled("hf://datasets/me/other", tmp_path / "ix")
    assert contents(tmp_path / "ix") == hub.repositories["me/other"]["main"]


def test_an_index_that_changed_in_the_meantime_is_pulled_anew(stored: Hub, index: Path, tmp_path: Path) -> None:
    (tmp_path / "ix.pulling/tantivy").mkdir(parents=True)
    (tmp_path / "ix.pulling/checksums.json").write_bytes(listing({"manifest.json": b"x"}))
    (tmp_path / "ix.pulling/tantivy/old.store").write_bytes(b"of another index")
    pulled("hf://datasets/me/wiki", tmp_path / "ix")
    assert contents(tmp_path / "ix") == listed(index)


def test_a_hub_whose_files_are_not_the_listed_ones(stored: Hub, tmp_path: Path) -> None:
    files = stored.repositories["me/wiki"]["main"]
    name = next(name for name in files if name.endswith(".store"))
    good = files[name]
    for bad in (b"\0" + good[1:], good[:-1], good + b"x"):
        files[name] = bad
        with pytest.raises(ServiceError):
            pulled("hf://datasets/me/wiki", tmp_path / "ix")
        assert [path.name for path in tmp_path.iterdir()] == ["ix.pulling"]
    files[name] = good
    pulled("hf://datasets/me/wiki", tmp_path / "ix")


def test_a_hub_without_the_index(stored: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del stored.repositories["me/wiki"]["main"]["checksums.json"]
    for url in ("hf://datasets/me/wiki", "hf://datasets/me/other", "hf://datasets/me/wiki@v9"):
        with pytest.raises(InputError, match=r"status 404.*set HF_TOKEN if it is private"):
            pulled(url, tmp_path / "ix")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("problem", ["key", "address"])
def test_a_failed_upload_is_one_sentence_without_the_key(problem: str, index: Path) -> None:
    with running_hub() as hub:
        hub.repositories["me/wiki"] = {"main": {}}
        wrong = {"HF_TOKEN": "hf_wrongkeywrongkey"} if problem == "key" else {"HF_ENDPOINT": "http://127.0.0.1:9"}
        environment = {**os.environ, **hub.environment(), **wrong}
        command = [sys.executable, "-m", "r1searcher.cli", "index", "push", str(index), "hf://datasets/me/wiki"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "hf://datasets/me/wiki@main could not be written" in " ".join(done.stderr.split())
    assert "wrongkey" not in done.stderr
    assert KEY not in done.stderr
    assert "Traceback" not in done.stderr
