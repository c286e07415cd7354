"""A retriever of somebody else, exactly as CONTRIBUTING.md has it, in every command that takes one."""

import json
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r1searcher.common.files import read_rows
from tests import extension
from tests.evaluation.conftest import CAPITALS, searcher, serve, tokenizer_folder  # noqa: F401  # fixtures
from tests.retrieval.serving import post, serving

BLOCKS = extension.blocks("Add a retriever")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package of CONTRIBUTING.md, seen by this test's processes."""
    entry_points = tomllib.loads(BLOCKS["toml"])["project"]["entry-points"]
    where = extension.install(tmp_path / "site", {"my_retriever": BLOCKS["my_retriever.py"]}, entry_points)
    monkeypatch.setenv("PYTHONPATH", extension.environment(where)["PYTHONPATH"])
    return where


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rows = [
        {"id": str(n), "title": land, "text": f"{city} is the capital of {land}."}
        for n, (land, city) in enumerate(CAPITALS.items())
    ]
    return write(tmp_path / "passages.jsonl", rows)


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    rows = [{"question": f"What is the capital of {land}?", "answer": city} for land, city in CAPITALS.items()]
    return write(tmp_path / "capitals.jsonl", rows)


def write(file: Path, rows: list[dict[str, str]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return file


def output(package: Path, *arguments: object) -> str:
    return extension.finished(extension.r1s(arguments, package))


def test_it_has_at_most_40_lines_of_code() -> None:
    assert extension.code_lines(BLOCKS["my_retriever.py"]) <= 40


@pytest.mark.parametrize("form", ["mine:{}", "mine://{}"])
def test_search(package: Path, corpus: Path, form: str) -> None:
    found = output(package, "search", form.format(corpus), "capital of Peru", "--top-k", 1, "--json")
    assert json.loads(found) == [["1", 3.0]]


def test_it_keeps_the_contract(package: Path, corpus: Path) -> None:
    code = (
        "import asyncio, sys\n"
        "from r1searcher.retrieval import open_retriever\n"
        "from r1searcher.retrieval.contract import check_retriever\n"
        "asyncio.run(check_retriever(open_retriever(sys.argv[1]), 'capital of Peru'))\n"
    )
    extension.finished(extension.python(code, package, [f"mine:{corpus}"]))


def test_serve(package: Path, corpus: Path) -> None:
    with serving(f"mine:{corpus}") as address:
        (found,) = post(f"{address}/retrieve", {"queries": ["capital of Peru"], "topk": 1})["result"]
    assert [document["contents"] for document in found] == ['"Peru"\nLima is the capital of Peru.']


def test_recall(package: Path, corpus: Path, questions: Path) -> None:
    measured = json.loads(output(package, "recall", f"mine:{corpus}", "--dataset", questions, "--json"))
    assert measured["questions"] == len(CAPITALS)
    assert measured["at"]["1"]["recall"] == 1.0


Evaluate = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def evaluate(package: Path, questions: Path, searcher: Any) -> Evaluate:  # noqa: F811
    """Runs `r1s evaluate` on the capitals, with further arguments."""
    (package / "prompt.txt").write_text("Question: {question}\n")
    prompt = ("--set", f"model.prompt={package}/prompt.txt", "--set", "model.chat_template=false")
    arguments = ("evaluate", searcher.url, "--dataset", questions, "--to", package / "report", *prompt)
    return lambda *words: extension.r1s([*arguments, *words], package)


def test_evaluate(package: Path, corpus: Path, evaluate: Evaluate) -> None:
    extension.finished(evaluate("--retriever", f"mine:{corpus}"))
    report = json.loads((package / "report" / "report.json").read_text())
    assert report["datasets"]["capitals"]["em"]["value"] == 1.0
    retriever = report["manifest"]["retriever"]
    assert (retriever["kind"], retriever["name"], retriever["passages"]) == ("mine", str(corpus), len(CAPITALS))


def table_of(corpus: Path) -> tuple[str, ...]:
    return ("--set", "retrieval.kind=mine", "--set", f"retrieval.url=mine:{corpus}")


def test_its_settings_are_keys_of_the_settings_table(package: Path, corpus: Path, evaluate: Evaluate) -> None:
    extension.finished(evaluate(*table_of(corpus), "--set", "retrieval.min_words=5"))
    rows = list(read_rows(package / "report" / "predictions.jsonl"))
    found = [[hit["title"] for hit in row["searches"][0]["hits"]] for row in rows]
    assert found == [[land] for land in CAPITALS], "every passage has `is the capital of`, one has the fifth word"


def test_a_wrong_key_is_reported_as_other_settings_are(corpus: Path, evaluate: Evaluate) -> None:
    done = evaluate(*table_of(corpus), "--set", "retrieval.min_word=4")
    assert done.returncode == 2
    assert "retrieval.min_word = 4: did you mean retrieval.min_words?" in done.stderr
    done = evaluate(*table_of(corpus), "--set", "retrieval.min_words=many")
    assert done.returncode == 2
    assert "retrieval.min_words = 'many': must be a valid integer" in done.stderr
    done = evaluate("--set", "retrieval.kind=mime")
    assert done.returncode == 2
    assert "retrieval.kind = 'mime': there is no retriever 'mime' (did you mean 'mine'?)" in done.stderr
