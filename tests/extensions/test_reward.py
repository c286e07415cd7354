"""A reward part of somebody else, exactly as CONTRIBUTING.md has it, in stage 1, `r1s evaluate` and `r1s score`."""

import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from r1searcher.common.files import read_rows
from r1searcher.rewards.contract import check_reward_part
from tests import extension
from tests.evaluation.conftest import index, questions, searcher, serve, tokenizer_folder  # noqa: F401  # fixtures
from tests.rewards.test_contract import TRAJECTORIES
from tests.shared_data import DATA

BLOCKS = extension.blocks("Add a reward")
PARTS = tomllib.loads(BLOCKS["settings.toml"])["reward"]["parts"]
RELEASED = DATA / "r1-searcher" / "eval_results" / "bamboogle_qwen.jsonl"
RECIPE = """
from r1searcher.rewards.recipes import Part

SEARCH_SHORTLY = {"stage1": (Part("retrieval", 0.25), Part("short_answer"))}
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package of CONTRIBUTING.md and a recipe of it, seen by this test's processes."""
    entry_points = tomllib.loads(BLOCKS["my_reward.toml"])["project"]["entry-points"]
    entry_points["r1searcher.recipes"] = {"search-shortly": "my_recipe:SEARCH_SHORTLY"}
    modules = {"my_reward": BLOCKS["my_reward.py"], "my_recipe": RECIPE}
    where = extension.install(tmp_path / "site", modules, entry_points)
    monkeypatch.setenv("PYTHONPATH", extension.environment(where)["PYTHONPATH"])
    return where


def inline(value: Any) -> str:
    """A value of a settings file on one line, as `--set` takes it."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {inline(inner)}' for key, inner in value.items())}}}"
    return f"[{', '.join(map(inline, value))}]" if isinstance(value, list) else json.dumps(value)


def evaluate(package: Path, model: Any, *words: object) -> "subprocess.CompletedProcess[str]":
    (package / "prompt.txt").write_text("Question: {question}\n")
    prompt = ("--set", f"model.prompt={package}/prompt.txt", "--set", "model.chat_template=false")
    arguments = ("evaluate", model.url, "--to", package / "report", *prompt, *words)
    return extension.r1s(arguments, package)


def scores(package: Path, reward: str) -> dict[str, float]:
    scored = json.loads(extension.finished(extension.r1s(["score", RELEASED, "--json", "--reward", reward], package)))
    return {key: found["value"] for key, found in scored.items() if key.startswith("reward")}


def test_it_has_at_most_5_lines_of_code_and_keeps_the_contract() -> None:
    source = BLOCKS["my_reward.py"]
    assert extension.code_lines(source) <= 5
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    check_reward_part(namespace["short_answer"], TRAJECTORIES)
    check_reward_part(namespace["short_answer"], TRAJECTORIES, {"words": 1})


def test_evaluate_records_its_value(package: Path, index: Path, questions: Path, searcher: Any) -> None:  # noqa: F811
    words = ("--dataset", questions, "--retriever", index)
    done = evaluate(package, searcher, *words, "--set", f"reward.parts={inline(PARTS)}")
    assert done.returncode == 0, done.stderr
    rows = list(read_rows(package / "report" / "predictions.jsonl"))
    assert [row["parts"] for row in rows] == [{"f1": 1.0, "short_answer": 0.5}] * 6, "answers have one word"
    assert [row["reward"] for row in rows] == [1.5] * 6


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"words": "two"}, "reward.parts: 'short_answer': params.words = 'two': must be a valid integer"),
        ({"word": 2}, "reward.parts: 'short_answer' has no parameter 'word': did you mean words?"),
    ],
)
def test_wrong_parameters_are_one_sentence(
    package: Path,
    index: Path,  # noqa: F811
    questions: Path,  # noqa: F811
    searcher: Any,  # noqa: F811
    params: dict[str, Any],
    said: str,
) -> None:
    parts = inline([{"name": "short_answer", "params": params}])
    words = ("--dataset", questions, "--retriever", index)
    done = evaluate(package, searcher, *words, "--set", f"reward.parts={parts}")
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_score_computes_a_part_and_recipes(package: Path) -> None:
    released = [json.loads(line) for line in RELEASED.read_text("utf-8").split("\n") if line]
    short = sum(0 < len(row["pred_ans"].split()) <= 3 for row in released) / len(released)
    assert 0 < short < 1
    assert scores(package, "short_answer") == {
        "reward": pytest.approx(short),
        "reward/short_answer": pytest.approx(short),
    }
    searched = sum("<|end_of_documents|>" in row["gen_text_store"] for row in released) / len(released)
    expected = {"reward": searched / 4 + short, "reward/retrieval": searched / 4, "reward/short_answer": short}
    assert scores(package, "search-shortly") == pytest.approx(expected)
    assert set(scores(package, "paper:stage1")) == {"reward", "reward/retrieval", "reward/format"}


def test_score_says_what_it_takes(package: Path, tmp_path: Path) -> None:
    done = extension.r1s(["score", str(RELEASED), "--reward", "short_anser"], package)
    assert done.returncode == 2
    assert "is not a recipe or a reward part (did you mean 'short_answer'?)" in " ".join(done.stderr.split())
    plain = tmp_path / "plain.jsonl"
    plain.write_text('{"question": "Who?", "answer": "Ada", "prediction": "Ada"}\n')
    done = extension.r1s(["score", str(plain), "--reward", "short_answer"], package)
    assert done.returncode == 2
    assert "has answers without trajectories" in " ".join(done.stderr.split())


BROKEN = """
import math

def divided(context):
    return 1 / 0

def endless(context):
    return math.inf
"""


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("divided", "the reward part 'divided' failed: ZeroDivisionError: division by zero"),
        ("endless", "the reward part 'endless' returned inf: it must be a finite number"),
    ],
)
def test_a_part_that_fails_is_named(tmp_path: Path, part: str, said: str) -> None:
    entry_points = {"r1searcher.reward_parts": {part: f"broken:{part}"}}
    done = extension.r1s(
        ["score", str(RELEASED), "--reward", part], extension.install(tmp_path, {"broken": BROKEN}, entry_points)
    )
    assert done.returncode == 1
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
