"""Sources of every kind: compressed, folders, archives, standard input; bad rows; the real samples."""

import bz2
import csv
import gzip
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import zstandard

from r1searcher.corpora.passage import Passage
from r1searcher.corpora.readers import Corpus, read_passages
from r1searcher.errors import InputError
from tests.shared_data import shared

ROWS = [Passage(str(n), f"T{n}", f"text {n} – ü") for n in range(3)]
JSONL = "".join(json.dumps({"id": row.id, "title": row.title, "text": row.text}) + "\n" for row in ROWS).encode()


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, bz2.compress, zstandard.compress], ids=["plain", "gz", "bz2", "zst"]
)
def test_compression_is_recognised_by_content_whatever_the_name(tmp_path: Path, pack: object) -> None:
    (tmp_path / "corpus.bin").write_bytes(pack(JSONL))  # type: ignore[operator]
    corpus = Corpus(tmp_path / "corpus.bin")
    assert list(corpus) == ROWS
    assert corpus.read_bytes == corpus.total_bytes


def test_compressed_in_parts_is_read_whole(tmp_path: Path) -> None:
    lines = JSONL.splitlines(keepends=True)
    for name, pack in (("a.gz", gzip.compress), ("b.bz2", bz2.compress), ("c.zst", zstandard.compress)):
        (tmp_path / name).write_bytes(b"".join(pack(line) for line in lines))
        assert list(Corpus(tmp_path / name)) == ROWS


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, zstandard.compress])
def test_a_file_cut_short_is_not_taken_for_the_whole(tmp_path: Path, pack: object) -> None:
    (tmp_path / "cut").write_bytes(pack(JSONL * 1000)[:-20])  # type: ignore[operator]
    with pytest.raises(InputError, match="damaged or cut short"):
        list(Corpus(tmp_path / "cut"))


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    lines = JSONL.splitlines()
    (tmp_path / "AB").mkdir()
    (tmp_path / "AB" / "wiki_00.bz2").write_bytes(bz2.compress(lines[1]))
    (tmp_path / "AA").mkdir()
    (tmp_path / "AA" / "wiki_00.bz2").write_bytes(bz2.compress(lines[0]))
    (tmp_path / "AC.jsonl").write_bytes(lines[2])
    (tmp_path / ".hidden").write_bytes(b"no corpus")
    assert list(Corpus(tmp_path)) == ROWS


def test_a_tar_archive_of_compressed_files_is_read_on_the_fly(tmp_path: Path) -> None:
    """As HotpotQA's abstracts come: bz2 files in a tar in a bz2."""
    with tarfile.open(tmp_path / "abstracts.tar.bz2", "w:bz2") as archive:
        for number, line in enumerate(JSONL.splitlines()):
            content = bz2.compress(line)
            member = tarfile.TarInfo(f"abstracts/AA/wiki_{number:02d}.bz2")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    assert list(Corpus(tmp_path / "abstracts.tar.bz2")) == ROWS


def test_standard_input_is_a_source() -> None:
    code = "from r1searcher.corpora.readers import Corpus; print([p.id for p in Corpus('-')])"
    done = subprocess.run([sys.executable, "-c", code], input=gzip.compress(JSONL), capture_output=True, check=True)
    assert done.stdout.decode().strip() == "['0', '1', '2']"


def test_parquet(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="reading Parquet needs pyarrow")
    import pyarrow.parquet as parquet

    rows = [{"id": int(row.id), "title": row.title, "text": row.text, "other": 1.5} for row in ROWS]
    parquet.write_table(arrow.Table.from_pylist([*rows, {**rows[0], "text": None}]), tmp_path / "c.parquet")
    corpus = Corpus(tmp_path / "c.parquet")
    assert list(corpus) == ROWS
    assert corpus.bad == 1
    contents = [{"id": row.id, "contents": f'"{row.title}"\n{row.text}'} for row in ROWS]
    parquet.write_table(arrow.Table.from_pylist(contents), tmp_path / "d.parquet")
    assert list(Corpus(tmp_path / "d.parquet")) == ROWS
    (tmp_path / "d.parquet").write_bytes((tmp_path / "d.parquet").read_bytes()[:-10])
    with pytest.raises(InputError, match="damaged"):
        list(Corpus(tmp_path / "d.parquet"))


def test_bad_rows_are_counted_written_down_and_limited(tmp_path: Path) -> None:
    source, rejects = tmp_path / "c.jsonl", tmp_path / "rejects.jsonl"
    source.write_bytes(b"junk\n" + JSONL + b'{"id": 9}\n')
    corpus = Corpus(source, rejects=rejects, bad_allowed=2)
    assert list(corpus) == ROWS
    assert corpus.bad == 2
    written = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [(row["line"], row["row"]) for row in written] == [(1, "junk"), (5, '{"id": 9}')]
    assert written[1] == {"file": str(source), "line": 5, "reason": "the text is missing", "row": '{"id": 9}'}
    with pytest.raises(InputError, match=r"c.jsonl, line 5: the text is missing. 2 rows are not passages, 1 are"):
        list(Corpus(source, rejects=rejects, bad_allowed=1))
    with pytest.raises(InputError, match="line 1: not JSON"):
        list(read_passages(source))


def test_no_rejects_file_without_rejects(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_bytes(JSONL)
    assert list(Corpus(tmp_path / "c.jsonl", rejects=tmp_path / "rejects", limit=2)) == ROWS[:2]
    assert not (tmp_path / "rejects").exists()


def test_what_is_no_corpus_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no corpus .*nowhere"):
        Corpus(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no file"):
        Corpus(tmp_path)
    (tmp_path / "notes.txt").write_text("just words\n")
    with pytest.raises(InputError, match=r"no corpus format that is known: name one with --format \(jsonl, "):
        list(Corpus(tmp_path / "notes.txt"))
    with pytest.raises(InputError, match="no corpus format 'xml'"):
        Corpus(tmp_path / "notes.txt", "xml")


def test_the_r1_searcher_sample_is_read_right() -> None:
    """Python's own CSV reader agrees on this file, which has no stray quote."""
    source = shared("data/corpora/train_np_title_abs_sample_100.tsv")
    passages = list(read_passages(source))
    with source.open(encoding="utf-8-sig", newline="") as lines:
        expected = [(id_, *body.split(" Text:", 1)) for id_, body in csv.reader(lines, delimiter="\t")]
    assert [(row.id, f"Title: {row.title}", row.text) for row in passages] == [
        (id_, title, text.strip()) for id_, title, text in expected
    ]
    assert passages[0].title == "Professional Football League of Ukraine"
    assert '(Ukrainian: "Професіональна футбольна ліга України" ,' in passages[0].text
    assert passages[3].text.endswith('of the film "Quantum of Solace".')
    assert len(passages) == 100


def test_kilt_pages_are_cut_as_r1_searcher_cut_them() -> None:
    """Its released passages of the same pages; the last is cut off in the sample."""
    ours = list(read_passages(shared("data/corpora/filtered_kilt_sample_100.jsonl")))
    theirs = list(read_passages(shared("data/corpora/train_kilt_full_page_sample_100.tsv")))
    assert len(theirs) == 93
    assert [(row.title, row.text) for row in ours[:92]] == [(row.title, row.text) for row in theirs[:92]]
    assert len(ours) == 2375


def test_the_hipporag_sample_is_read_right() -> None:
    source = shared("data/corpora/2wikimultihopqa_corpus.json")
    expected = [
        (str(n), row["title"].strip(), row["text"].strip()) for n, row in enumerate(json.loads(source.read_text()))
    ]
    assert [(row.id, row.title, row.text) for row in read_passages(source)] == expected


def test_the_search_r1_sample_is_read_right() -> None:
    passages = list(read_passages(shared("data/corpora/search_r1_example.jsonl")))
    assert [passage.id for passage in passages] == [str(n) for n in range(10)]
    assert passages[0].title == "Evan Morris"
    assert passages[0].text.startswith("Evan Morris Evan L. Morris (January 26, 1977 – July 9, 2015)")
