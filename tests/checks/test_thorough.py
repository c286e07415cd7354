"""`r1s check`: the mistake of a broken set-up is its first error, and what is in order passes."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from r1searcher.checks.base import CheckResult, StageInputs, Status
from r1searcher.checks.runner import run_checks
from r1searcher.common.terminal import console
from r1searcher.config.settings import Stage, load
from r1searcher.corpora.passage import Passage
from r1searcher.demo.world import make_world
from r1searcher.episodes.protocols.r1_searcher import R1_SEARCHER
from r1searcher.planning.derive import complete
from r1searcher.questions.named import open_dataset
from r1searcher.retrieval.indexing.bm25 import build
from tests.shared_data import shared

pytestmark = pytest.mark.training  # the checks of the machine look for the training packages

LANDS = {
    "Norway": "Oslo",
    "Peru": "Lima",
    "Ghana": "Accra",
    "Chile": "Santiago",
    "Latvia": "Riga",
    "Nepal": "Kathmandu",
    "Kenya": "Nairobi",
    "Malta": "Valletta",
    "Cuba": "Havana",
    "Japan": "Tokyo",
}
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save_tokenizer(
    folder: Path, normalizer: Any = None, eos: str | None = "<|im_end|>", template: str = CHATML
) -> None:
    bpe = Tokenizer(models.BPE({letter: n for n, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    if normalizer:
        bpe.normalizer = normalizer
    specials = ["<|im_start|>", "<|im_end|>"]
    made = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=eos, bos_token="<|bos|>", additional_special_tokens=specials
    )
    made.chat_template = template
    made.save_pretrained(folder)


def write_questions(file: Path, answer: Callable[[str], Any] = lambda city: [city]) -> None:
    rows = [
        {"id": land, "question": f"What is the capital of {land}?", "answer": answer(LANDS[land])} for land in LANDS
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="session")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("indexes")
    right = [Passage(land, land, f"{city} is the capital of {land}.") for land, city in LANDS.items()]
    build(right, folder / "right")
    build([Passage(land, f"What {land}", f"The {land} team won a cup.") for land in LANDS], folder / "wrong")
    build([Passage("1", "Xyz", "Abc")], folder / "empty")
    return folder


@pytest.fixture
def world(tmp_path: Path, indexes: Path) -> dict[str, Any]:
    save_tokenizer(tmp_path / "model")
    write_questions(tmp_path / "train.jsonl")
    return {
        "output": str(tmp_path / "runs"),
        "model": {"path": str(tmp_path / "model"), "prompt": "chat"},
        "data": {"train": str(tmp_path / "train.jsonl")},
        "retrieval": {"url": str(indexes / "right"), "retry_timeout_s": 1},
        "episode": {"max_new_tokens": 256, "max_context": 8192},
        "rl": {"questions_per_step": 4, "samples_per_question": 2, "batch_size": 8, "micro_batch_size": 2},
        "engine": {"device": "cpu"},
    }


def results(world: dict[str, Any], folder: Path, stage: Stage = "stage1") -> dict[str, CheckResult]:
    (folder / "settings.toml").write_text(tomli_w.dumps(world))
    inputs = StageInputs(stage, complete(load(stage, folder / "settings.toml"), stage).settings)
    return {result.name: result for result in run_checks(inputs, thorough=True)}


def first_error(world: dict[str, Any], folder: Path, stage: Stage = "stage1") -> CheckResult | None:
    found = results(world, folder, stage).values()
    return next((result for result in found if result.status is Status.PROBLEM), None)


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_what_is_in_order_has_no_error_and_no_warning(world: dict[str, Any], tmp_path: Path, stage: Stage) -> None:
    found = results(world, tmp_path, stage)
    assert {r.name: r.message for r in found.values() if r.status in (Status.PROBLEM, Status.WARNING)} == {}
    assert found["corpus"].message.startswith("answer in 10 passages: 10 of 10 questions; own title: 10 of 10")
    assert "<|begin_of_query|>" in found["instruction"].message
    cases = dict(case.rsplit(" ", 1) for case in found["reward-cases"].message.split("; "))
    if stage == "stage1":  # half a point each for a search and for the format
        expected = {"right answer": "1", "wrong answer": "1", "nothing": "0", "no search": "0.5", "long answer": "0.5"}
    else:  # F1, or -2 for a broken format
        expected = {"right answer": "1", "wrong answer": "0", "nothing": "-2", "no search": "0", "long answer": "-2"}
    assert cases.items() >= expected.items()


def no_instruction(world: dict[str, Any], folder: Path) -> None:
    (folder / "prompt.txt").write_text("Answer the question.\n{question}\n")
    world["model"]["prompt"] = str(folder / "prompt.txt")


def list_as_text(world: dict[str, Any], folder: Path) -> None:
    write_questions(folder / "train.jsonl", lambda city: f"['{city}']")


def wrong_corpus(world: dict[str, Any], folder: Path) -> None:
    world["retrieval"]["url"] = world["retrieval"]["url"].replace("right", "wrong")


def empty_retriever(world: dict[str, Any], folder: Path) -> None:
    world["retrieval"]["url"] = world["retrieval"]["url"].replace("right", "empty")


def retriever_down(world: dict[str, Any], folder: Path) -> None:
    world["retrieval"]["url"] = "http://127.0.0.1:9"


def other_protocol(world: dict[str, Any], folder: Path) -> None:
    (folder / "prompt.txt").write_text("Search with <search> query </search>, answer in <answer>.\n{question}\n")
    world["model"]["prompt"] = str(folder / "prompt.txt")


def no_end_of_turn(world: dict[str, Any], folder: Path) -> None:
    save_tokenizer(folder / "model", template=CHATML.replace("<|im_end|>", ""))


def no_end_of_sequence(world: dict[str, Any], folder: Path) -> None:
    save_tokenizer(folder / "model", eos=None)


def two_bos(world: dict[str, Any], folder: Path) -> None:
    save_tokenizer(folder / "model", template="<|bos|><|bos|>" + CHATML)


def overlap(world: dict[str, Any], folder: Path) -> None:
    write_questions(folder / "held_out.jsonl")
    world["data"]["held_out"] = str(folder / "held_out.jsonl")


def unreachable_stop(world: dict[str, Any], folder: Path) -> None:
    save_tokenizer(folder / "model", normalizers.Replace("</answer>", "</Answer>"))


def paid_cheat(world: dict[str, Any], folder: Path) -> None:
    world["reward"] = {"parts": [{"name": "f1"}, {"name": "retrieval", "weight": -0.5}]}


def small_context(world: dict[str, Any], folder: Path) -> None:
    world["episode"] = {"max_new_tokens": 256, "max_context": 1000}  # the prompt and one turn fit, passages do not


def short_turns(world: dict[str, Any], folder: Path) -> None:
    world["episode"] = {"max_new_tokens": 16, "max_context": 8192}


BROKEN = {
    no_instruction: ("instruction", "does not say how to search"),
    list_as_text: ("gold-answers", "a list written as text"),
    wrong_corpus: ("corpus", "does this corpus belong to these questions"),
    empty_retriever: ("corpus", "no passage was found for any of 10 questions"),
    retriever_down: ("retriever", "127.0.0.1:9"),
    other_protocol: ("instruction", "explains search-r1 (<search>)"),
    no_end_of_turn: ("tokenizer", "does not end the assistant's message"),
    no_end_of_sequence: ("tokenizer", "no end-of-sequence token"),
    two_bos: ("tokenizer", "begins with two <|bos|>"),
    overlap: ("overlap", "10 of 10 questions are in data.train too"),
    unreachable_stop: ("tokenizer", "cannot write the stop string </answer>"),
    paid_cheat: ("reward-cases", "earns 0, more than an honest wrong answer (-0.5)"),
    small_context: ("context", "an episode with one search does not fit"),
    short_turns: ("context", "episode.max_new_tokens = 16"),
}


@pytest.mark.parametrize("mistake", BROKEN, ids=lambda mistake: mistake.__name__)
def test_the_first_error_names_the_mistake(
    world: dict[str, Any], tmp_path: Path, mistake: Callable[[dict[str, Any], Path], None]
) -> None:
    mistake(world, tmp_path)
    name, said = BROKEN[mistake]
    error = first_error(world, tmp_path)
    assert error is not None
    assert error.name == name, error
    assert said in error.message


def test_few_wrong_gold_answers_are_a_warning(world: dict[str, Any], tmp_path: Path) -> None:
    rows = (tmp_path / "train.jsonl").read_text().splitlines()
    long = {"id": "x", "question": "Which song?", "answer": ["one two three four five six seven eight nine ten eleven"]}
    (tmp_path / "train.jsonl").write_text("\n".join([*rows, *rows, json.dumps(long)]) + "\n")
    found = results(world, tmp_path)["gold-answers"]
    assert found.status is Status.WARNING
    assert "1 question has only gold answers of more than 10 words" in found.message


def test_the_command_prints_all_items_and_exits_with_2_for_an_error(world: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(tomli_w.dumps(world))
    command = [sys.executable, "-m", "r1searcher.cli", "check", str(tmp_path / "settings.toml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "reward-cases" in done.stdout
    retriever_down(world, tmp_path)
    (tmp_path / "settings.toml").write_text(tomli_w.dumps(world))
    done = subprocess.run([*command, "--json"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "1 of " in done.stderr
    assert "Traceback" not in done.stderr
    rows = json.loads(done.stdout)["checks"]
    assert [row["check"] for row in rows if row["status"] == "error"] == ["retriever"]
    assert not (tmp_path / "runs").exists()


@pytest.mark.shared
@pytest.mark.parametrize(
    ("preset", "stage", "split"),
    [
        ("paper-llama-8b", "stage1", "stage1"),
        ("paper-llama-8b", "stage2", "stage2"),
        ("paper-qwen-7b", "stage2", "stage2"),
    ],
)
def test_the_authors_questions_and_the_papers_presets_have_no_error(
    tmp_path: Path, preset: str, stage: Stage, split: str
) -> None:
    """With a small tokenizer and on the CPU, since the models cannot be downloaded here, with a corpus that the test
    makes; everything else is the preset's. A few gold answers of stage 2 are too long."""
    data = open_dataset(f"r1-searcher:{split}", shared("data/r1-searcher"), training=True)
    build([Passage(q.id, q.text, f"It is {q.gold_answers[0]}.") for q in data.questions], tmp_path / "index")
    save_tokenizer(tmp_path / "model")
    changes = {
        "output": str(tmp_path / "runs"),
        "model.path": str(tmp_path / "model"),
        "data.folder": str(shared("data/r1-searcher")),
        "data.train": f"r1-searcher:{split}",
        "retrieval.url": str(tmp_path / "index"),
        "engine.device": "cpu",
    }
    inputs = StageInputs(stage, complete(load(stage, preset=preset, overrides=changes), stage).settings)
    found = {result.name: result for result in run_checks(inputs, thorough=True)}
    assert {r.name: r.message for r in found.values() if r.status is Status.PROBLEM} == {}
    if split == "stage2":
        assert "63 questions have only gold answers of more than 10 words" in found["gold-answers"].message


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_the_demo_has_no_error(tmp_path: Path, stage: Stage) -> None:
    """With a tokenizer that is learned from the demo's passages: its model need not be here."""
    world = make_world(tmp_path / "world", 7, console(stderr=True))
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    specials = ["<|im_start|>", "<|im_end|>", *R1_SEARCHER.tags]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=2000, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator((world / "passages.jsonl").read_text().splitlines(), trainer)
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>").save_pretrained(tmp_path / "model")
    changes = {
        "output": str(tmp_path / "runs"),
        "model.path": str(tmp_path / "model"),
        "data.train": str(world / "train.jsonl"),
        "data.held_out": str(world / "held_out.jsonl"),
        "retrieval.url": str(world / "index"),
    }
    inputs = StageInputs(stage, complete(load(stage, preset="demo", overrides=changes), stage).settings)
    found = list(run_checks(inputs, thorough=True))
    assert {r.name: r.message for r in found if r.status in (Status.PROBLEM, Status.WARNING)} == {}
