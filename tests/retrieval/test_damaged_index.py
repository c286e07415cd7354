"""A damaged index gives its own hits or an error, at any time of damage and for every client."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from r1searcher.errors import InputError
from r1searcher.retrieval.base import IndexDamagedError
from r1searcher.retrieval.engines.bm25 import EmbeddedIndex, _tantivy
from tests.retrieval.damage import KINDS, QUERIES, ask, attack, damages, make_index, outcome
from tests.retrieval.serving import started


@pytest.fixture
def index(tmp_path: Path) -> Path:
    make_index(tmp_path / "ix")
    return tmp_path / "ix"


def test_while_it_is_served_every_answer_is_right_or_an_error(index: Path) -> None:
    """A few positions of the 200 in each file that `benchmarks/damaged_index.py` takes, with clients meanwhile."""
    cases = list(damages(index, 3))
    assert {case.kind for case in cases} == set(KINDS)
    tally: Counter[tuple[str, str, str]] = Counter()
    meanwhile: Counter[str] = Counter()
    over = threading.Event()
    with started(str(index), "--workers", "2") as (process, address):
        intact = {query: ask(address, query) for query in QUERIES}
        assert all(isinstance(hits, list) for hits in intact.values())

        def client() -> None:
            while not over.is_set():
                for query in QUERIES:
                    meanwhile[outcome(ask(address, query), intact[query])] += 1

        thread = threading.Thread(target=client)
        thread.start()
        try:
            attack(address, intact, cases, tally)
        finally:
            over.set()
            thread.join()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert {what for _, _, what in tally} | set(meanwhile) <= {"right", "503", "hung up"}
    assert sum(count for (_, _, what), count in tally.items() if what == "503") > len(cases)


def test_health_says_that_searches_fail_and_when_they_do_no_longer(index: Path) -> None:
    with started(str(index), "--workers", "1") as (_, address):
        case = next(case for case in damages(index, 3) if case.file.suffix == ".term")
        case.do()
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(f"{address}/health", timeout=60)
        assert raised.value.code == 503
        assert b"is damaged" in raised.value.read()
        case.undo()
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=60).close()
                break
            except urllib.error.HTTPError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        assert isinstance(ask(address, QUERIES[0]), list)


def test_before_it_is_opened_it_is_refused(index: Path) -> None:
    intact = EmbeddedIndex(index).search_one(QUERIES[0], 3)
    outcomes: Counter[str] = Counter()
    for case in damages(index, 10):
        for kind in KINDS:
            replace(case, kind=kind).do()
            try:
                hits = EmbeddedIndex(index).search_one(QUERIES[0], 3)
                assert hits == intact, (case.file.name, kind, case.position)
                outcomes["right"] += 1
            except InputError:
                outcomes["refused"] += 1
            case.undo()
    assert outcomes["refused"] > 10 * outcomes["right"]


@pytest.fixture
def panicking(index: Path) -> Path:
    """An index that makes tantivy panic in a search, damaged as a disk does it: sizes and times are as they were."""
    file = next((index / "tantivy").glob("*.term"))
    content, before = file.read_bytes(), file.stat()
    for start in range(0, len(content), 16):
        with file.open("r+b") as handle:
            handle.write(content[:start] + b"\xff" * 16 + content[start + 16 :])
            handle.truncate(len(content))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        try:
            EmbeddedIndex(index).search_one("word5", 3)
        except InputError:
            continue
        except IndexDamagedError as error:
            if "panicked" in str(error):
                return index
    pytest.fail("tantivy panics nowhere: this tests nothing")


def test_a_panic_is_one_line_of_search(panicking: Path) -> None:
    command = [sys.executable, "-m", "r1searcher.cli", "search", str(panicking), "word5"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"r1s: The index {panicking} is damaged (tantivy panicked)")
    assert "index-corpus" in line


def test_a_panic_is_an_error_of_search_and_health(panicking: Path) -> None:
    async def run() -> None:
        index = EmbeddedIndex(panicking)
        assert (await index.health()).passages == 2000
        with pytest.raises(IndexDamagedError, match="tantivy panicked") as raised:
            await index.search(["word5"], 3)
        assert not raised.value.transient
        with pytest.raises(IndexDamagedError, match="tantivy panicked"):
            await index.health()
        await index.aclose()

    asyncio.run(run())


def test_serve_reads_every_file_first(panicking: Path) -> None:
    command = [sys.executable, "-m", "r1searcher.cli", "serve", str(panicking), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert ".term: its checksum is wrong" in done.stderr


def test_an_index_of_an_earlier_version_is_served_and_its_changes_noticed(index: Path) -> None:
    (index / "checksums.json").unlink()
    with started(str(index), "--workers", "1") as (_, address):
        assert isinstance(ask(address, QUERIES[0]), list)
        next(case for case in damages(index, 3) if case.file.suffix == ".idx").do()
        assert ask(address, QUERIES[0]) == "503"


def test_other_exceptions_pass_the_boundary(tmp_path: Path) -> None:
    for error in (KeyboardInterrupt, MemoryError, AssertionError):
        with pytest.raises(error), _tantivy(tmp_path):
            raise error
