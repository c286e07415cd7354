"""Checks before a stage: all of them run, what they found is one result each, and other packages can add some."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from r1searcher.checks.base import RL_STAGES, StageInputs, Status
from r1searcher.checks.runner import CHECKS, require_checks, run_checks
from r1searcher.config.settings import load
from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError
from r1searcher.retrieval.indexing.bm25 import build
from tests import extension


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    """All settings that do not need training packages are right; the model does not exist."""
    build([Passage("1", "Oslo", "Oslo is in Norway.")], tmp_path / "index")
    rows = [{"question": f"question {n}?", "answer": "Oslo"} for n in range(4)]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "data.train": str(tmp_path / "questions.jsonl"),
        "retrieval.url": str(tmp_path / "index"),
        "model.path": str(tmp_path / "no-model"),
        "rl.questions_per_step": 4,
        "rl.batch_size": 4,
        "engine.device": "cpu",
    }


def results(settings: dict[str, Any], stage: str = "stage1") -> tuple[StageInputs, dict[str, tuple[Status, str]]]:
    inputs = StageInputs(stage, load(stage, overrides=settings))
    return inputs, {found.name: (found.status, found.message) for found in run_checks(inputs)}


def test_each_check_reports_and_fills_in_what_it_opened(settings: dict[str, Any]) -> None:
    inputs, found = results(settings)
    for name in ("reward", "training-data", "questions-per-step", "device", "retriever", "model", "prompt"):
        assert found[name] == (Status.OK, ""), name
    assert found["held-out-data"] == (Status.SKIPPED, "data.held_out is not set")
    assert found["prompts"][0] is not Status.OK
    assert inputs.topology is not None
    assert inputs.topology.device == "cpu"
    assert "traces" not in found
    assert [q.text for q in inputs.train.questions] == [f"question {n}?" for n in range(4)]
    assert inputs.health.passages == 1
    assert "{question}" in inputs.prompt


def test_a_costly_check_runs_last_and_not_after_a_problem(settings: dict[str, Any]) -> None:
    _, found = results({**settings, "rl.questions_per_step": 5})
    assert found["questions-per-step"] == (
        Status.PROBLEM,
        "data.train has 4 questions, and one step needs rl.questions_per_step = 5: lower it, or add questions",
    )
    assert list(found)[-4:] == ["prompts", "disk", "host-memory", "cluster"]
    for name in ("prompts", "disk", "host-memory", "cluster"):
        assert found[name] == (Status.SKIPPED, "other checks found problems")


def test_what_depends_on_data_that_cannot_be_read_is_skipped(settings: dict[str, Any]) -> None:
    _, found = results({**settings, "data.train": "nowhere.jsonl"})
    assert found["training-data"][0] is Status.PROBLEM
    assert found["questions-per-step"][0] is Status.SKIPPED
    assert found["retriever"] == (Status.OK, "")


def test_sft_has_checks_of_its_own(settings: dict[str, Any]) -> None:
    _, found = results(settings, "sft")
    assert {"packages", "device", "model", "protocol"} < set(found)
    assert not {"reward", "training-data", "held-out-data", "retriever", "prompts"} & set(found)
    assert "data.traces is not set" in found["traces"][1]


def test_all_problems_are_one_error(settings: dict[str, Any]) -> None:
    wrong = {**settings, "data.train": "nowhere.jsonl", "data.held_out": "nothing.jsonl", "retrieval.url": "no-index"}
    with pytest.raises(InputError) as error:
        require_checks(StageInputs("stage2", load("stage2", overrides=wrong)))
    head, *problems = str(error.value).splitlines()
    assert head == "nothing was started:"
    for said in ("nowhere.jsonl", "nothing.jsonl", "no-index"):
        assert sum(said in problem for problem in problems) == 1


def test_a_check_of_another_package_is_reported_with_the_others(tmp_path: Path) -> None:
    blocks = extension.blocks("Add a check")
    entries = tomllib.loads(blocks["pyproject.toml"])["project"]["entry-points"]
    where = extension.install(tmp_path / "site", {"my_checks": blocks["my_checks.py"]}, entries)
    done = extension.r1s(["stage1", "--seed", "7"], where, tmp_path)
    assert done.returncode == 2
    assert "seeds of our experiments start at 100" in done.stderr
    assert "data.train is not set" in done.stderr
    assert "start at 100" not in extension.r1s(["stage1", "--seed", "100"], where, tmp_path).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["site"], "nothing is started"


def test_every_built_in_check_can_be_loaded_and_belongs_to_a_stage() -> None:
    for name in CHECKS.builtin:
        assert set(CHECKS[name].stages) <= {"sft", *RL_STAGES}
        assert CHECKS[name].stages
        assert CHECKS[name].run.__doc__, "docs/training.md shows it"
