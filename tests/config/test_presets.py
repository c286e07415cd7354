"""Presets: every value has a source, and the paper's values are the paper's."""

import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from r1searcher.config.settings import Settings, Stage, load, presets
from r1searcher.questions.datasets import DATASETS

SOURCED = [name for name in presets() if name not in ("demo", "smollm2-wiki")]
SOURCE = re.compile(r"[\w.]+ = .+?  # (section \d|released: \w|chosen\b)")


def lines(preset: str) -> list[str]:
    text = (resources.files("r1searcher.config") / "presets" / f"{preset}.toml").read_text("utf-8")
    return text.splitlines()


@pytest.mark.parametrize("preset", SOURCED)
def test_every_value_has_a_source(preset: str) -> None:
    values = [line for line in lines(preset) if line and not line.startswith(("#", "["))]
    assert len(values) > 20
    assert [line for line in values if not SOURCE.match(line)] == []


def settings(preset: str, stage: Stage, **overrides: Any) -> Settings:
    return load(stage, preset=preset, overrides={key.replace("__", "."): value for key, value in overrides.items()})


@pytest.mark.parametrize(("preset", "kl_coef"), [("paper-llama-8b", 1e-4), ("paper-qwen-7b", 0.0)])
def test_the_papers_values_are_those_of_its_section_3_3(preset: str, kl_coef: float) -> None:
    """16 rollouts per sample, a train batch of 256, a rollout batch of 64, a learning rate of 2e-6, temperature 1.0, at
    most 8 retrievals, one epoch, and a KL of 0 for Qwen and 1e-4 for Llama."""
    found = settings(preset, "stage2")
    rl = found.rl
    assert (rl.samples_per_question, rl.batch_size, rl.questions_per_step) == (16, 256, 64)
    assert (rl.learning_rate, rl.lr_schedule, rl.kl_coef, rl.steps) == (2e-6, "constant", kl_coef, None)
    assert (found.episode.temperature, found.episode.max_searches) == (1.0, 8)
    assert found.reward.recipe == "paper"


@pytest.mark.parametrize("preset", SOURCED)
def test_the_questions_are_the_papers_unless_the_user_names_others(preset: str, tmp_path: Path) -> None:
    stages: tuple[Stage, ...] = ("stage2",) if preset == "paper-qwen-7b" else ("stage1", "stage2")
    (tmp_path / "settings.toml").write_text('[data]\ntrain = "mine.jsonl"\n')
    for stage in stages:
        dataset, _, split = settings(preset, stage).data.train.partition(":")
        assert split == stage
        assert split in DATASETS[dataset].splits
        assert settings(preset, stage, data__train="mine.jsonl").data.train == "mine.jsonl"
        assert load(stage, tmp_path / "settings.toml", preset).data.train == "mine.jsonl"
