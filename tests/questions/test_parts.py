"""`r1s data split` and `r1s data merge`: which questions end up where, and what is recorded."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from r1searcher.common.files import read_rows, sha256_of
from r1searcher.errors import InputError
from r1searcher.questions.parts import Part, SplitRequest, run_split, split
from r1searcher.questions.question import Question


def data(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "r1searcher.cli", "data", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def write(file: Path, *texts: str) -> None:
    rows = [{"id": str(number), "question": text, "answer": "a"} for number, text in enumerate(texts)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def texts(file: Path) -> list[str]:
    return [row["question"] for row in read_rows(file)]


def test_parts_have_their_sizes_share_no_question_and_depend_on_the_seed(tmp_path: Path) -> None:
    asked = [f"Question {number}?" for number in range(50)]
    write(tmp_path / "q.jsonl", *asked)
    words = ("split", "q.jsonl", "--part", "train", "--part", "held_out=10", "--part", "dev=0.1", "--json")
    done = data(tmp_path, *words, "--to", "a")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"parts": {"train": 35, "held_out": 10, "dev": 5}, "left_out": 0}
    found = {name: texts(tmp_path / "a" / f"{name}.jsonl") for name in ("train", "held_out", "dev")}
    assert sorted(text for part in found.values() for text in part) == sorted(asked)
    assert found["train"] == [text for text in asked if text in found["train"]]  # in the order of the file
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["questions"]["sha256"] == sha256_of(tmp_path / "q.jsonl")
    assert manifest["sha256"]["dev"] == sha256_of(tmp_path / "a" / "dev.jsonl")
    for seed, same in (("7", True), ("8", False)):
        assert data(tmp_path, *words, "--to", f"seed-{seed}", "--seed", seed).returncode == 0
        assert (texts(tmp_path / f"seed-{seed}" / "dev.jsonl") == found["dev"]) is same


def test_equal_questions_are_never_in_two_parts() -> None:
    """Case, articles and punctuation do not count, as in the metrics."""
    questions = [Question(f"{n}/{k}", f"{'The ' * k}Name of {n}{'?' * k}", ("a",)) for n in range(20) for k in (0, 1)]
    for seed in range(20):
        parts = split(questions, [Part("a", 0.5), Part("b")], seed)
        assert {q.id.split("/")[0] for q in parts["a"]}.isdisjoint(q.id.split("/")[0] for q in parts["b"])
        assert len(parts["a"]) == len(parts["b"]) == 20


def test_shares_that_add_up_to_one_take_every_question() -> None:
    questions = [Question(str(n), f"q {n}", ("a",)) for n in range(11)]
    parts = split(questions, [Part("a", 1 / 3), Part("b", 1 / 3), Part("c", 1 / 3)], 7)
    assert sorted(map(len, parts.values())) == [3, 4, 4]


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ("a b", "only one part can take the rest"),
        ("a=12", "the parts need 12 questions of 10"),
        ("a=0.01 b", "--part a would have no question"),
        ("a=-1", "give a share"),
        ("a=nan", "give a share"),
        ("a=inf", "give a share"),
        ("a=1.5", "give a share"),
        ("../a", "is named with letters"),
        ("manifest", "is named with letters"),
        ("a=1 a=2", "given twice"),
    ],
)
def test_parts_that_cannot_be_made_are_one_sentence(parts: str, said: str, tmp_path: Path) -> None:
    write(tmp_path / "q.jsonl", *(f"q {number}" for number in range(10)))
    request = SplitRequest(questions=str(tmp_path / "q.jsonl"), parts=parts.split(), to=tmp_path / "parts")
    with pytest.raises(InputError, match=said):
        run_split(request)
    assert not (tmp_path / "parts").exists()


def test_a_merged_file_has_each_question_once_with_its_source(tmp_path: Path) -> None:
    write(tmp_path / "one.jsonl", "Who?", "Where?", "When?")
    write(tmp_path / "two.jsonl", "where", "Why?")
    done = data(tmp_path, "merge", "one.jsonl", "two.jsonl", "--to", "all.jsonl", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"questions": 4, "sources": {"one": 3, "two": 1}, "repeated": 1}
    rows = list(read_rows(tmp_path / "all.jsonl"))
    assert {(row["question"], row["source"], row["id"]) for row in rows} == {
        ("Who?", "one", "one/0"),
        ("Where?", "one", "one/1"),
        ("When?", "one", "2"),
        ("Why?", "two", "two/1"),
    }
    manifest = json.loads((tmp_path / "all.manifest.json").read_text())
    assert manifest["from"]["two"]["sha256"] == sha256_of(tmp_path / "two.jsonl")
    assert manifest["questions_sha256"] == sha256_of(tmp_path / "all.jsonl")
    assert data(tmp_path, "merge", "one.jsonl", "two.jsonl", "--to", "all.jsonl").returncode == 2


def test_a_merge_takes_as_many_of_each_by_the_seed(tmp_path: Path) -> None:
    write(tmp_path / "one.jsonl", *(f"one {number}" for number in range(30)))
    write(tmp_path / "two.jsonl", *(f"two {number}" for number in range(5)))
    found = []
    for number, seed in enumerate(("7", "7", "8")):
        words = ("merge", "one.jsonl", "two.jsonl", "--each", "5", "--seed", seed, "--to", f"{number}.jsonl", "--json")
        assert json.loads(data(tmp_path, *words).stdout)["sources"] == {"one": 5, "two": 5}
        found.append(texts(tmp_path / f"{number}.jsonl"))
    assert found[0] == found[1] != found[2]
