"""A dataset of somebody else, exactly as CONTRIBUTING.md has it, in training, recall and evaluation."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests import extension
from tests.engine.toy import make_world
from tests.evaluation.conftest import CAPITALS, index, searcher, serve, tokenizer_folder  # noqa: F401  # fixtures

BLOCKS = extension.blocks("Add a dataset")
FUNCTION = '''
from r1searcher.questions.datasets import NamedDataset
from r1searcher.questions.question import Question


def generated():
    """One `Question`, one row of FlashRAG's shape, and one that cannot be used."""
    yield Question("a", "What is the capital of Norway?", ("Oslo",), hops=1)
    yield {"id": "b", "question": "What is the capital of Peru?", "golden_answers": ["Lima"]}
    yield {"id": "c", "question": "What is the capital of Atlantis?"}


GENERATED = NamedDataset({"all": generated})
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package of CONTRIBUTING.md with its two files, and a second one whose rows a function yields."""
    entry_points = tomllib.loads(BLOCKS["my_datasets.toml"])["project"]["entry-points"]
    entry_points["r1searcher.datasets"]["generated"] = "my_rows:GENERATED"
    modules = {"my_datasets": BLOCKS["my_datasets.py"], "my_rows": FUNCTION}
    where = extension.install(tmp_path / "site", modules, entry_points)
    rows = [{"id": land, "question": f"What is the capital of {land}?", "answer": CAPITALS[land]} for land in CAPITALS]
    for split, of_split in (("train", rows[:4]), ("test", rows[4:])):
        (where / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in of_split))
    monkeypatch.setenv("PYTHONPATH", extension.environment(where)["PYTHONPATH"])
    return where


def output(package: Path, *arguments: object) -> str:
    return extension.finished(extension.r1s(arguments, package))


def test_it_has_at_most_5_lines_of_code_and_keeps_the_contract(package: Path) -> None:
    assert extension.code_lines(BLOCKS["my_datasets.py"]) <= 5
    code = (
        "from r1searcher.questions.contract import check_dataset\n"
        "from r1searcher.questions.datasets import DATASETS\n"
        "check_dataset('rivers', DATASETS['rivers'])\n"
        "print(*DATASETS)"
    )
    assert extension.finished(extension.python(code, package)).split()[-2:] == ["generated", "rivers"]


def test_recall(package: Path, index: Path) -> None:  # noqa: F811
    measured = json.loads(output(package, "recall", index, "--dataset", "rivers:train", "--json"))
    assert (measured["questions"], measured["at"]["1"]["recall"]) == (4, 1.0)
    done = extension.r1s(["recall", str(index), "--dataset", "generated", "--json"], package)
    assert json.loads(done.stdout)["questions"] == 2
    said = " ".join(done.stderr.split())
    assert "generated: 1 unusable row skipped, the first in line 3: the row has no gold answer" in said


def test_evaluate_takes_the_last_split_and_its_scorer(package: Path, index: Path, searcher: Any) -> None:  # noqa: F811
    (package / "prompt.txt").write_text("Question: {question}\n")
    prompt = ("--set", f"model.prompt={package}/prompt.txt", "--set", "model.chat_template=false")
    datasets = ("--dataset", "rivers", "--dataset", "generated")
    to = package / "report"
    output(package, "evaluate", searcher.url, *datasets, "--retriever", index, "--to", to, *prompt)
    report = json.loads((to / "report.json").read_text())
    rivers, generated = report["datasets"]["rivers"], report["datasets"]["generated"]
    assert (rivers["n"], generated["n"]) == (2, 2)
    assert rivers["official_em"]["value"] == 1.0
    assert rivers["official"] == ["hotpot_evaluate_v1.py of hotpotqa/hotpot (HotpotQA)"]
    assert "official_em" not in generated
    assert report["manifest"]["datasets"]["rivers"]["source"] == str(package / "test.jsonl")
    assert report["manifest"]["datasets"]["generated"]["source"] == "my_rows:generated"


def test_a_wrong_name_is_answered_with_the_nearest(package: Path, index: Path) -> None:  # noqa: F811
    done = extension.r1s(["recall", str(index), "--dataset", "river"], package)
    assert done.returncode == 2
    assert "there is no dataset 'river' (did you mean rivers?)" in " ".join(done.stderr.split())


def test_a_url_is_downloaded_once(
    package: Path,
    index: Path,  # noqa: F811
    serve: Any,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def answer(path: str, _: Any) -> tuple[int, Any]:
        asked.append(path)
        return 200, {"question": "What is the capital of Norway?", "answer": "Oslo"}

    source = (
        "from r1searcher.questions.datasets import NamedDataset\n"
        f"LINKED = NamedDataset({{'test': '{serve(answer).url}/linked.jsonl'}})\n"
    )
    where = extension.install(
        tmp_path / "linked", {"my_link": source}, {"r1searcher.datasets": {"linked": "my_link:LINKED"}}, "linked"
    )
    monkeypatch.setenv("R1S_CACHE", str(tmp_path / "cache"))
    for _ in range(2):
        assert json.loads(output(where, "recall", index, "--dataset", "linked", "--json"))["questions"] == 1
    assert asked == ["/linked.jsonl"]


PREPARE = """
import json, sys
from pathlib import Path
from r1searcher.config.settings import load
from r1searcher.runs.folder import RunFolder
from r1searcher.stages.prepare import prepare_stage
overrides = {"data.train": "rivers", "data.held_out": "rivers", "rl.questions_per_step": 4, "rl.batch_size": 32}
settings = load("stage1", Path(sys.argv[1]), None, overrides)
prepared = prepare_stage("stage1", settings, RunFolder(Path(sys.argv[2])))
print(json.dumps([[question.id for question in prepared.questions], prepared.warnings]))
settings = settings.model_copy(update={"data": settings.data.model_copy(update={"held_out": "rivers:train"})})
print(json.dumps(prepare_stage("stage1", settings, RunFolder(Path(sys.argv[3]))).warnings))
"""


@pytest.mark.training
def test_a_stage_trains_on_one_split_and_holds_out_the_other(package: Path, tmp_path: Path) -> None:
    pytest.importorskip("openrlhf")
    pytest.importorskip("vllm")
    world = make_world(tmp_path / "world")
    prepared = extension.python(PREPARE, package, [world.settings, tmp_path / "a", tmp_path / "b"])
    first, second = extension.finished(prepared).splitlines()[-2:]
    assert json.loads(first) == [list(CAPITALS)[:4], []]
    assert json.loads(second) == ["data.held_out: 4 questions are in the training data too"]
