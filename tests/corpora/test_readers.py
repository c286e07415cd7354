"""Sources of every kind: compressed, folders, archives, standard input; bad rows; the real samples."""

import bz2
import csv
import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import zstandard

from r1searcher.corpora.passage import Passage
from r1searcher.corpora.readers import Corpus, read_passages
from r1searcher.errors import FileError, InputError
from tests.shared_data import DATA, has_shared, shared

ROWS = [Passage(str(n), f"T{n}", f"text {n} – ü") for n in range(3)]
JSONL = "".join(json.dumps({"id": row.id, "title": row.title, "text": row.text}) + "\n" for row in ROWS).encode()


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, bz2.compress, zstandard.compress], ids=["plain", "gz", "bz2", "zst"]
)
def test_compression_is_detected_by_content_regardless_of_the_name(tmp_path: Path, pack: object) -> None:
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
    with pytest.raises(InputError, match="damaged or truncated"):
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
    """Like HotpotQA's abstracts: bz2 files in a tar in a bz2."""
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
    with pytest.raises(InputError, match="has no files"):
        Corpus(tmp_path)
    (tmp_path / "notes.txt").write_text("just words\n")
    with pytest.raises(InputError, match=r"not in a known corpus format: name one with --format \(parquet, "):
        list(Corpus(tmp_path / "notes.txt"))
    with pytest.raises(InputError, match="--format: there is no corpus format 'xml'"):
        Corpus(tmp_path / "notes.txt", "xml")


SAMPLES = DATA / "corpora"


@pytest.mark.parametrize(
    "source", [SAMPLES / "r1_searcher_abstracts.tsv", "data/corpora/train_np_title_abs_sample_100.tsv"]
)
def test_the_r1_searcher_sample_is_read_right(source: Path | str) -> None:
    """Python's own CSV reader gives the same result on this file, which does not have a stray quote."""
    source = larger(source)
    passages = list(read_passages(source))
    with source.open(encoding="utf-8-sig", newline="") as lines:
        expected = [(id_, *body.split(" Text:", 1)) for id_, body in csv.reader(lines, delimiter="\t")]
    assert [(row.id, f"Title: {row.title}", row.text) for row in passages] == [
        (id_, title, text.strip()) for id_, title, text in expected
    ]
    assert passages[0].title == "Professional Football League of Ukraine"
    assert '(Ukrainian: "Професіональна футбольна ліга України" ,' in passages[0].text
    assert passages[3].text.endswith('of the film "Quantum of Solace".')
    assert len(passages) in (40, 100)


def larger(source: Path | str) -> Path:
    """A fixture, and the larger file if available, otherwise the fixture again."""
    if isinstance(source, Path) or not has_shared(f"data/corpora/{source}"):
        return SAMPLES / "r1_searcher_abstracts.tsv"
    return shared(f"data/corpora/{source}")


def test_kilt_pages_are_cut_as_r1_searcher_cut_them() -> None:
    """Its released passages of the same page; the fixture cuts off the last of ours."""
    ours = list(read_passages(SAMPLES / "kilt.jsonl"))
    theirs = list(read_passages(SAMPLES / "kilt_released.tsv"))
    assert [(row.title, row.text) for row in ours[:10]] == [(row.title, row.text) for row in theirs]
    if has_shared("data/corpora"):  # the last is cut off in the sample
        ours = list(read_passages(shared("data/corpora/filtered_kilt_sample_100.jsonl")))
        theirs = list(read_passages(shared("data/corpora/train_kilt_full_page_sample_100.tsv")))
        assert len(theirs) == 93
        assert [(row.title, row.text) for row in ours[:92]] == [(row.title, row.text) for row in theirs[:92]]
        assert len(ours) == 2375


def pairs(rows: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(row["title"].strip(), row["text"].strip()) for row in rows]


ATLAS = json.loads((SAMPLES / "hipporag.json").read_text("utf-8"))
SHORT = pairs([row for row in ATLAS if len(row["text"]) < 700][:24])


def test_the_hipporag_sample_is_read_right() -> None:
    expected = [(str(n), *pair) for n, pair in enumerate(pairs(ATLAS))]
    assert [(row.id, row.title, row.text) for row in read_passages(SAMPLES / "hipporag.json")] == expected


def test_arrays_of_a_folder_are_numbered_through_all_files(tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text('[{"title": "A", "text": "a"}, {"title": "B", "text": "b"}]')
    assert [row.id for row in Corpus(tmp_path)] == ["0", "1", "2", "3"]


def test_the_search_r1_sample_is_read_right() -> None:
    passages = list(read_passages(SAMPLES / "search_r1.jsonl"))
    assert [passage.id for passage in passages] == [str(n) for n in range(10)]
    assert passages[0].title == "Evan Morris"
    assert passages[0].text.startswith("Evan Morris Evan L. Morris (January 26, 1977 – July 9, 2015)")


@pytest.mark.parametrize("source", ["beir", "beir/corpus.jsonl"])
def test_beir(source: str) -> None:
    """For a whole dataset folder, only its corpus is read, not the queries and judgments next to it."""
    found = list(read_passages(SAMPLES / source))
    assert [(row.title, row.text) for row in found] == SHORT
    assert [row.id for row in found] == [f"doc{n}" for n in range(24)]


@pytest.mark.parametrize(
    "name", ["hotpotqa_distractor.json", "2wikimultihopqa.json", "musique.jsonl", "flashrag_hotpotqa.jsonl"]
)
@pytest.mark.parametrize("packed", [False, True])
def test_paragraphs_that_questions_carry_are_read_once(tmp_path: Path, name: str, packed: bool) -> None:
    """Six questions of four paragraphs, each sharing one with the next."""
    path = SAMPLES / name
    if packed:
        (tmp_path / "x").write_bytes(gzip.compress(path.read_bytes()))
        path = tmp_path / "x"
    corpus = Corpus(path, bad_allowed=0)
    found = list(corpus)
    assert [(row.title, row.text) for row in found] == SHORT[:19]
    assert corpus.repeated == 5
    assert len({row.id for row in found}) == 19
    assert all(row.id.isdigit() for row in found)


def test_a_paragraph_has_one_id_in_every_file(tmp_path: Path) -> None:
    for name in ("train.json", "dev.json"):
        (tmp_path / name).write_bytes((SAMPLES / "hotpotqa_distractor.json").read_bytes())
    corpus = Corpus(tmp_path)
    assert [row.id for row in corpus] == [row.id for row in Corpus(SAMPLES / "musique.jsonl")]
    assert corpus.repeated == 5 + 24


def test_dpr_passages_are_those_of_pythons_csv_reader() -> None:
    with (SAMPLES / "psgs_w100.tsv").open(newline="", encoding="utf-8") as file:
        expected = [(row["id"], row["title"], row["text"]) for row in csv.DictReader(file, delimiter="\t")]
    found = [(row.id, row.title, row.text) for row in read_passages(SAMPLES / "psgs_w100.tsv")]
    assert found == expected
    assert found[-1] == ("25", '"Heroes" (song)', 'A song "Heroes" ( by ; David "Bowie" ) .')


@pytest.mark.parametrize("name", ["hotpotqa_distractor.json", "search_r1.jsonl", "beir/corpus.jsonl"])
def test_parquet_of_the_same_columns_reads_the_same(tmp_path: Path, name: str) -> None:
    arrow = pytest.importorskip("pyarrow", reason="reading Parquet needs pyarrow")
    import pyarrow.parquet as parquet

    text = (SAMPLES / name).read_text("utf-8")
    rows = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.split("\n") if line]
    for row in rows:
        row.pop("metadata", None)
        if "context" in row:  # as on Hugging Face
            titles, sentences = zip(*row.pop("context"), strict=True)
            row["context"] = {"title": list(titles), "sentences": list(sentences)}
            row.pop("supporting_facts")
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "c.parquet")
    assert list(read_passages(tmp_path / "c.parquet")) == list(read_passages(SAMPLES / name))
    (tmp_path / "c.gz").write_bytes(gzip.compress((tmp_path / "c.parquet").read_bytes()))
    assert list(read_passages(tmp_path / "c.gz")) == list(read_passages(SAMPLES / name))
    (tmp_path / "c.tar").write_bytes(tar_of((tmp_path / "c.parquet").read_bytes()))
    assert list(read_passages(tmp_path / "c.tar")) == list(read_passages(SAMPLES / name))


UNUSABLE = {
    "questions.jsonl": ('{"id": "test_0", "question": "who", "golden_answers": ["x"]}\n', "questions and not passages"),
    "prompts.jsonl": ('{"prompt": [], "reward_model": {"ground_truth": 1}}\n', "questions and not passages"),
    "bamboogle.json": ('[{"question": "who", "answer": "x"}]', "questions and not passages"),
    "triviaqa.json": ('{"Data": [{"Question": "x"}], "Domain": "web"}', "questions and not passages"),
    "nq-dev.qa.csv": ("who is it\t['A', \"B\"]\nwhat is it\t['C']\n", "questions and not passages"),
    "biencoder-nq-dev.json": ('[{"question": "q", "answers": [], "positive_ctxs": [{"title"', "psgs_w100.tsv instead"),
    "squad.json": (
        '{"version": "1.1", "data": [{"title": "A", "paragraphs": [{"context": "c", "qas": []}]}]}',
        "SQuAD",
    ),
    "squad.jsonl": ('{"id": "1", "title": "A", "context": "c", "question": "q", "answers": {}}\n', "SQuAD"),
    "nq.jsonl": ('{"annotations": [], "document_text": "x", "question_text": "q"}\n', "Natural Questions"),
    "queries.jsonl": ('{"_id": "q1", "text": "who"}\n', "BEIR's queries"),
    "test.tsv": ("query-id\tcorpus-id\tscore\nq1\td1\t1\n", "relevance judgments"),
    "qrels.txt": ("101 0 doc1 1\n101 0 doc2 0\n", "relevance judgments"),
    "wiki.xml": ('<mediawiki xml:lang="en">', "a dump of a wiki"),
    "corpus.zip": ("PK\x03\x04...", "unpack it"),
    "blank.jsonl": ("\n \n", "contains only white space"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_known_file_without_passages_is_named_with_what_would_work(tmp_path: Path, name: str) -> None:
    content, sentence = UNUSABLE[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=sentence) as raised:
        list(Corpus(tmp_path / name))
    assert "empty" not in str(raised.value)


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").touch()
    with pytest.raises(InputError, match="does not contain a passage: it is empty"):
        list(Corpus(tmp_path / "c.jsonl"))
    (tmp_path / "c.jsonl").write_text('{"id": 1}\n{"id": 2}\n')
    with pytest.raises(InputError, match=r"all 2 rows were rejected, the first \(.*line 1: the text is missing"):
        list(Corpus(tmp_path / "c.jsonl"))


def test_parquet_of_questions_is_named(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="reading Parquet needs pyarrow")
    import pyarrow.parquet as parquet

    parquet.write_table(arrow.table({"question": ["q"], "golden_answers": [["a"]]}), tmp_path / "q.parquet")
    with pytest.raises(InputError, match="questions and not passages"):
        list(Corpus(tmp_path / "q.parquet"))
    parquet.write_table(arrow.table({"x": ["q"], "y": [1]}), tmp_path / "q.parquet")
    with pytest.raises(InputError, match="has the columns x, y: id, title, text"):
        list(Corpus(tmp_path / "q.parquet"))


def tar_of(*contents: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for number, content in enumerate(contents):
            member = tarfile.TarInfo(f"{number}.jsonl")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


LINES = JSONL.splitlines(keepends=True)
TAR = tar_of(*LINES)


@pytest.mark.parametrize(
    "content",
    [
        TAR[:1024],  # exactly one member, without the end mark
        TAR[:1100],  # in a header
        TAR[:1600],  # in a member
        TAR[:1024] + b"x" * 512 + TAR[1536:],  # a damaged header
        TAR + tar_of(LINES[0]),  # two archives, one after the other
        gzip.compress(TAR)[:-4],
    ],
    ids=["no end mark", "cut header", "cut member", "damaged header", "two archives", "cut gz"],
)
def test_an_archive_that_is_cut_is_not_taken_for_the_whole(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.tar").write_bytes(content)
    with pytest.raises(InputError, match="damaged or truncated"):
        list(Corpus(tmp_path / "c.tar"))


def test_a_whole_archive_is_read(tmp_path: Path) -> None:
    (tmp_path / "c.tar").write_bytes(TAR)
    assert list(Corpus(tmp_path / "c.tar")) == ROWS


@pytest.mark.parametrize("pack", [gzip.compress, tar_of], ids=["gz", "tar"])
def test_layers_without_end_are_refused(tmp_path: Path, pack: Any) -> None:
    content = JSONL
    for _ in range(1500 if pack is gzip.compress else 50):
        content = pack(content)
    (tmp_path / "deep").write_bytes(content)
    with pytest.raises(InputError, match="more than 4 times: unpack it first"):
        list(Corpus(tmp_path / "deep"))


@pytest.mark.parametrize("pack", ["gz", "zst"])
def test_a_line_of_300_mb_is_one_rejected_row_and_little_memory(tmp_path: Path, pack: str) -> None:
    """In a process limited to 250 MB of address space more than at its start."""
    path = tmp_path / "c"
    opened: Any = gzip.open(path, "wb", 1) if pack == "gz" else zstandard.open(path, "wb")  # noqa: SIM115
    with opened as file:
        file.write(LINES[0] + b'{"id": "long", "text": "')
        for _ in range(300):
            file.write(b" " * (1 << 20))
        file.write(b'"}\n' + LINES[1])
    code = (
        "import resource, sys, zstandard\n"
        "from r1searcher.corpora.readers import Corpus\n"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize() + (250 << 20)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size, size))\n"
        "corpus = Corpus(sys.argv[1]); print([row.id for row in corpus], corpus.bad)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.stdout.strip() == "['0', '1'] 1", done.stderr


def test_a_pipe_is_a_source(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = subprocess.Popen(["sh", "-c", f"cat > {tmp_path / 'pipe'}"], stdin=subprocess.PIPE)
    assert writer.stdin is not None
    writer.stdin.write(JSONL)
    writer.stdin.close()
    corpus = Corpus(tmp_path / "pipe")
    assert corpus.total_bytes is None
    assert list(corpus) == ROWS
    assert corpus.read_bytes == 0
    assert writer.wait(60) == 0


@pytest.mark.parametrize("name", ["", "x" * 300, "a\0b", "https://host/corpus.jsonl"])
def test_names_of_no_file_are_refused(name: str) -> None:
    with pytest.raises(InputError):
        Corpus(name)


def test_rejects_that_cannot_be_written_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_bytes(b"junk\n" + JSONL)
    with pytest.raises(FileError, match="/dev/full cannot be written: the disk is full: free some space"):
        list(Corpus(tmp_path / "c.jsonl", rejects=Path("/dev/full")))
    with pytest.raises(FileError, match="cannot be written"):
        list(Corpus(tmp_path / "c.jsonl", rejects=tmp_path / "nowhere" / "rejects"))
