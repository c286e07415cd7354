"""The embedded index: Lucene's ranking, exact ties, atomic builds, hostile queries."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from r1searcher.corpora.passage import Passage
from r1searcher.corpora.readers import read_passages
from r1searcher.errors import InputError
from r1searcher.retrieval import open_retriever
from r1searcher.retrieval.base import hits_of
from r1searcher.retrieval.engines.bm25 import EmbeddedIndex
from r1searcher.retrieval.indexing.base import IndexOptions
from r1searcher.retrieval.indexing.bm25 import build
from r1searcher.retrieval.indexing.manifest import IndexSettings, is_index

ATLAS = [
    Passage("a", "Oslo", "Oslo is the capital of Norway."),
    Passage("b", "Bergen", "Bergen lies in Norway, and Norway is cold."),
    Passage("c", "Rome", "Rome is the capital of Italy."),
]


def ids(index: EmbeddedIndex, query: str, top_k: int = 5) -> list[str]:
    return [hit.passage.id for hit in index.search_one(query, top_k)]


@pytest.mark.parametrize(
    ("place", "hits", "count"),
    [
        ("wikipedia_index", "lucene_hits", 80),
        pytest.param("large_index", "large_lucene_hits", 1000, marks=pytest.mark.shared),
    ],
)
def test_top_10_and_scores_are_those_of_lucene(
    place: str, hits: str, count: int, request: pytest.FixtureRequest
) -> None:
    index = EmbeddedIndex(request.getfixturevalue(place))
    expected = request.getfixturevalue(hits)
    assert len(expected) == count
    for (query, wanted), found in zip(expected.items(), asyncio.run(hits_of(index, list(expected), 10)), strict=True):
        assert [hit.passage.id for hit in found] == [id_ for id_, _ in wanted], query
        assert [hit.score for hit in found] == pytest.approx([score for _, score in wanted], rel=1e-6), query


@pytest.mark.parametrize("threads", [1, 3])
def test_equal_scores_fall_to_corpus_order_whatever_the_segments(tmp_path: Path, threads: int) -> None:
    passages = [Passage(str(n), "", "same words here") for n in range(500)]
    passages[250] = Passage("best", "", "words words words")
    build(passages, tmp_path / "ix", threads=threads, commit_every=90)
    index = EmbeddedIndex(tmp_path / "ix")
    assert threads > 1 or index._searcher.num_segments == 6, "one thread commits six segments, which tantivy leaves"
    assert ids(index, "words", 4) == ["best", "0", "1", "2"]
    assert ids(index, "same", 500) == [str(n) for n in range(500) if n != 250]


def test_passages_come_back_as_they_went_in(tmp_path: Path) -> None:
    odd = [Passage("1", 'A "quoted"\ttitle', "line\nbreak \u2028 \x00 🇳🇴 <answer>"), Passage("2", "", "nothing else")]
    build(odd, tmp_path / "ix")
    index = EmbeddedIndex(tmp_path / "ix")
    assert [hit.passage for hit in index.search_one("quoted", 3)] == [odd[0]]
    assert ids(index, "unknown words") == []


def test_a_repeated_query_term_counts_as_often_as_it_is_said(tmp_path: Path) -> None:
    build(ATLAS, tmp_path / "ix")
    index = EmbeddedIndex(tmp_path / "ix")
    once, twice = index.search_one("Rome", 1)[0].score, index.search_one("Rome rome", 1)[0].score
    assert twice == pytest.approx(2 * once)


def test_title_weight_keeps_title_and_text_apart(tmp_path: Path) -> None:
    rows = [Passage("title", "Oslo", "a town"), Passage("text", "Some town", "Oslo lies here among other ranks")]
    order = {}
    for weight in (0.01, 4.0):
        build(rows, tmp_path / str(weight), IndexOptions(settings=IndexSettings(title_weight=weight)))
        order[weight] = ids(EmbeddedIndex(tmp_path / str(weight)), "Oslo")
    assert order == {0.01: ["text", "title"], 4.0: ["title", "text"]}


@pytest.mark.parametrize(
    "query",
    [
        "",
        "  \n",
        '"',
        "(((",
        "a:b AND NOT",
        "terms:oslo^9",
        "\\",
        "[a TO b]",
        "the of",
        "\x00",
        "*",
        "/.*/",
        "+-!",
        "\ud800",
    ],
)
def test_a_hostile_query_is_only_words(tmp_path: Path, query: str) -> None:
    build(ATLAS, tmp_path / "ix")
    index = EmbeddedIndex(tmp_path / "ix")
    assert ids(index, query) in ([], ["a"])
    assert ids(index, f"{query} Bergen")[0] == "b"


def test_a_query_of_100_kb_is_cut_not_refused(tmp_path: Path) -> None:
    build(ATLAS, tmp_path / "ix")
    index = EmbeddedIndex(tmp_path / "ix")
    assert ids(index, "Bergen " + " ".join(f"w{n}" for n in range(20_000)))[0] == "b"
    assert ids(index, "x" * 100_000 + " Bergen") == []


async def test_searches_leave_the_event_loop_free(tmp_path: Path) -> None:
    """While a search runs in its thread, the loop still serves others."""
    build(ATLAS, tmp_path / "ix")
    retriever = open_retriever(f"file:{tmp_path / 'ix'}")
    running, release = threading.Event(), threading.Event()
    original = retriever.search_one  # type: ignore[attr-defined]

    def slow(query: str, top_k: int) -> object:
        running.set()
        assert release.wait(30)
        return original(query, top_k)

    retriever.search_one = slow  # type: ignore[attr-defined]
    search = asyncio.create_task(retriever.search(["Rome"], 1))
    while not running.is_set():
        await asyncio.sleep(0.001)
    assert (await retriever.health()).passages == 3
    release.set()
    assert [hit.passage.id for hit in (await search)[0].require_hits()] == ["c"]
    await retriever.aclose()


def test_no_index_half_index_and_damaged_index_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no index .*nowhere: create it with `r1s index-corpus"):
        EmbeddedIndex(tmp_path / "nowhere")
    (tmp_path / "ix.building").mkdir()
    with pytest.raises(InputError, match="not finished"):
        EmbeddedIndex(tmp_path / "ix")
    build(ATLAS, tmp_path / "ix")
    manifest = json.loads((tmp_path / "ix/manifest.json").read_text())
    (tmp_path / "ix/checksums.json").unlink()  # as in indexes of earlier versions
    (tmp_path / "ix/manifest.json").write_text(json.dumps({**manifest, "passages": 4}))
    with pytest.raises(InputError, match="it has 3 of 4 passages"):
        EmbeddedIndex(tmp_path / "ix")
    (tmp_path / "ix/manifest.json").write_text(json.dumps({**manifest, "format": 0}))
    with pytest.raises(InputError, match="index format 0"):
        EmbeddedIndex(tmp_path / "ix")
    (tmp_path / "ix/manifest.json").write_text(json.dumps(manifest))
    next((tmp_path / "ix/tantivy").glob("*.term")).unlink()
    with pytest.raises(InputError, match="damaged"):
        EmbeddedIndex(tmp_path / "ix")


def test_a_finished_index_is_replaced_only_when_asked(tmp_path: Path) -> None:
    build(ATLAS, tmp_path / "ix")
    with pytest.raises(InputError, match="already contains an index"):
        build(ATLAS[:1], tmp_path / "ix")
    build(ATLAS[:1], tmp_path / "ix", IndexOptions(overwrite=True))
    assert EmbeddedIndex(tmp_path / "ix").manifest.passages == 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["ix"]


def test_nothing_of_the_users_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_text("precious")
    with pytest.raises(InputError, match=r"is not an index|current folder or one above"):
        build(ATLAS, tmp_path, IndexOptions(overwrite=True))
    with pytest.raises(InputError, match=r"is not an index|current folder or one above"):
        build(ATLAS, tmp_path / "photo.jpg")
    assert (tmp_path / "photo.jpg").read_text() == "precious"


def test_settings_that_tantivy_has_not_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"k1 1.2 and b 0.75 only, not 0.9 and 0.4: .*Elasticsearch"):
        build(ATLAS, tmp_path / "ix", IndexOptions(settings=IndexSettings(k1=0.9, b=0.4)))


def test_an_empty_corpus_leaves_no_index(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not contain a passage"):
        build([], tmp_path / "ix")
    assert not is_index(tmp_path / "ix")


BUILD = """
import sys, pathlib
from r1searcher.corpora.passage import Passage
from r1searcher.retrieval.indexing.bm25 import build

def passages():
    for n in range(int(sys.argv[2])):
        yield Passage(str(n), f"title {n}", f"text number{n} of many words")

def report(done):
    if done % 500 == 1:
        print(done, flush=True)

build(passages(), pathlib.Path(sys.argv[1]), commit_every=1000, on_progress=report)
"""


def test_a_killed_build_never_looks_finished_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """kill -9 four times at different points; nothing committed is lost, nothing is indexed twice."""
    path, total = tmp_path / "ix", 6000
    command = [sys.executable, "-c", BUILD, str(path), str(total)]
    for rows_before_death in (500, 1500, 3500, 5500):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) > rows_before_death:
                os.kill(process.pid, signal.SIGKILL)
                break
        assert process.wait() == -signal.SIGKILL
        with pytest.raises(InputError, match="not finished"):
            EmbeddedIndex(path)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    index = EmbeddedIndex(path)
    assert index.manifest.passages == total
    for n in range(0, total, 250):
        assert ids(index, f"number{n}") == [str(n)]
    fresh = tmp_path / "fresh"
    subprocess.run([*command[:3], str(fresh), str(total)], check=True, stdout=subprocess.DEVNULL)
    assert index.manifest == EmbeddedIndex(fresh).manifest


def test_an_interrupted_build_of_another_corpus_is_not_continued(tmp_path: Path) -> None:
    def broken() -> object:
        yield from ATLAS
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(broken(), tmp_path / "ix", commit_every=2)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"other passages or settings: .*--restart"):
        build(ATLAS[::-1], tmp_path / "ix", commit_every=2)
    build(ATLAS[::-1], tmp_path / "ix", IndexOptions(restart=True), commit_every=2)
    assert EmbeddedIndex(tmp_path / "ix").manifest.passages == 3


def test_two_builds_into_one_folder_do_not_mix(tmp_path: Path) -> None:
    def second_build_meanwhile() -> object:
        yield ATLAS[0]
        with pytest.raises(InputError, match=rf"is being built by process {os.getpid()} on "):
            build(ATLAS, tmp_path / "ix")
        yield ATLAS[1]

    assert build(second_build_meanwhile(), tmp_path / "ix").passages == 2  # type: ignore[arg-type]


def test_an_index_is_no_bigger_for_being_read_from_search_r1_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": 1, "contents": '"Oslo"\nA town.'}) + "\n")
    (tmp_path / "b.jsonl").write_text(json.dumps({"id": "1", "title": "Oslo", "text": "A town."}) + "\n")
    assert build(read_passages(tmp_path / "a.jsonl"), tmp_path / "a") == build(
        read_passages(tmp_path / "b.jsonl"), tmp_path / "b"
    )
