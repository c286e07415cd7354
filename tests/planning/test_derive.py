"""Settings that are left open on GPUs: which values they get, and why."""

import itertools
import os
from pathlib import Path
from typing import Any

import pytest

from r1searcher.config.settings import Settings, Stage, derived_keys
from r1searcher.config.source import SettingsSource
from r1searcher.engine import topology as topologies
from r1searcher.errors import InputError
from r1searcher.planning.derive import Derived, Machine, card_bytes, complete, derive
from r1searcher.planning.plan import make_plan
from r1searcher.planning.shapes import shape_of

GB = int(1e9)


def settings(model: str, stage: Stage = "stage1", **given: Any) -> Settings:
    overrides = {key.replace("__", "."): value for key, value in given.items()}
    return SettingsSource(overrides={"model.path": model, "engine.device": "gpu", **overrides}).load(stage)


def derived(
    model: str, card: int, stage: Stage = "stage1", machine: dict[str, int] | None = None, **given: Any
) -> Derived:
    chosen = settings(model, stage, **given)
    return derive(chosen, stage, shape_of(model), Machine(card=card * GB, **(machine or {})))


@pytest.mark.parametrize(
    ("model", "gpus", "card"),
    [
        ("Qwen/Qwen2.5-0.5B", 1, 24),
        ("Qwen/Qwen2.5-1.5B", 1, 48),
        ("Qwen/Qwen2.5-1.5B", 1, 80),
        ("Qwen/Qwen2.5-3B", 4, 80),
        ("Qwen/Qwen2.5-7B", 8, 80),
        ("meta-llama/Llama-3.1-8B", 4, 141),
    ],
)
def test_what_is_derived_fits_and_is_explained(model: str, gpus: int, card: int) -> None:
    found = derived(model, card, engine__gpus=gpus, rl__kl_coef=0.01)
    assert derived_keys(found.settings) == ("sft.micro_batch_size",)  # what this stage does not read stays open
    plan = make_plan(found.settings, shape_of(model), card * GB)
    assert plan.fits, plan.problems
    assert found.settings.engine.colocate
    assert len(found.reasons) == 7
    table = found.settings.model_dump()
    for reason in found.reasons:
        key, value = reason.partition(": ")[0].split(" = ")
        section, name = key.split(".")
        assert str(table[section][name]).lower() == value


def test_smaller_cards_never_save_less() -> None:
    """In the order of the time that the savings cost."""

    def savings(card: int) -> tuple[Any, ...]:
        found = derived("Qwen/Qwen2.5-3B", card, engine__gpus=2).settings
        engine = found.engine
        return (engine.adam_offload, engine.zero_stage, engine.gradient_checkpointing, -found.rl.micro_batch_size)

    cards = (24, 32, 40, 48, 64, 80, 141, 288)
    assert all(small >= large for small, large in itertools.pairwise(map(savings, cards)))
    assert savings(cards[-1]) == (False, 2, False, -4)
    assert savings(cards[0])[0]


def test_settings_that_are_given_stay() -> None:
    given = {"engine__zero_stage": 3, "engine__gradient_checkpointing": True, "rl__micro_batch_size": 1}
    found = derived("Qwen/Qwen2.5-0.5B", 80, **given, engine__colocate=False, engine__gpu_memory_utilization=0.3)
    assert found.settings.engine.zero_stage == 3
    assert found.settings.engine.gradient_checkpointing
    assert found.settings.rl.micro_batch_size == 1
    assert not found.settings.engine.colocate
    assert found.settings.engine.gpu_memory_utilization == 0.3
    assert [reason.partition(" = ")[0] for reason in found.reasons] == ["engine.adam_offload"]


@pytest.mark.parametrize(
    ("given", "without"),
    [
        ({"engine__zero_stage": 0}, ("adam_offload", "reference_offload")),
        ({"engine__zero_stage": 2}, ("reference_offload",)),
        ({"rl__dynamic_batch": True, "rl__max_tokens_per_gpu": 8192}, ("micro_batch_size",)),
    ],
)
def test_what_would_have_no_effect_is_not_derived(given: dict[str, Any], without: tuple[str, ...]) -> None:
    reasons = derived("Qwen/Qwen2.5-0.5B", 80, rl__kl_coef=0.01, **given).reasons
    assert not any(name in reason for reason in reasons for name in without)
    assert (f"engine.colocate = {str(given.get('engine__zero_stage') != 0).lower()}" in reasons[0]) == bool(reasons)


def test_a_reason_says_what_would_not_fit() -> None:
    found = derived("Qwen/Qwen2.5-1.5B", 24, engine__adam_offload=False)
    assert "nothing fits; a card would need " in found.reasons[0]
    found = derived("Qwen/Qwen2.5-1.5B", 24)
    assert found.settings.engine.adam_offload
    assert any(r.startswith("engine.adam_offload = true: with false a card would need ") for r in found.reasons)


def test_a_reason_holds_whatever_the_settings_after_it_are() -> None:
    """Weights, gradients and Adam's state of 3.09 billion parameters are 57.5 GiB of a card alone."""
    found = derived("Qwen/Qwen2.5-3B", 64, rl__micro_batch_size=1)
    [reason] = [reason for reason in found.reasons if reason.startswith("engine.adam_offload = true")]
    needed = float(reason.partition("would need ")[2].partition(" ")[0])
    given = {"engine__adam_offload": False, "engine__gradient_checkpointing": True, "engine__zero_stage": 3}
    least = make_plan(
        settings("Qwen/Qwen2.5-3B", rl__micro_batch_size=1, **given), shape_of("Qwen/Qwen2.5-3B"), 64 * GB
    )
    assert least.memory.peak / 2**30 == pytest.approx(needed, abs=0.06)
    assert not least.fits


def test_a_model_that_fits_beside_vllm_on_no_card_gets_cards_of_its_own_if_there_are_any() -> None:
    """Twice the weights of a 7B model are 30 GB."""
    lora: dict[str, Any] = {"lora__rank": 16, "episode__max_context": 2048}
    assert derived("Qwen/Qwen2.5-7B", 24, machine={"cards": 1}, **lora).settings.engine.colocate
    found = derived("Qwen/Qwen2.5-7B", 24, machine={"cards": 2}, **lora)
    assert not found.settings.engine.colocate
    assert make_plan(found.settings, shape_of("Qwen/Qwen2.5-7B"), 24 * GB).fits


def test_nothing_moves_to_host_memory_that_is_not_there() -> None:
    enough = derived("Qwen/Qwen2.5-1.5B", 24, machine={"host": 128 * GB})
    assert enough.settings.engine.adam_offload
    little = derived("Qwen/Qwen2.5-1.5B", 24, machine={"host": 8 * GB})
    assert any("of 7 GiB of host memory would be needed" in reason for reason in little.reasons)


def test_micro_batches_divide_every_processes_share() -> None:
    assert (
        derived("Qwen/Qwen2.5-0.5B", 288, rl__batch_size=6, rl__questions_per_step=6).settings.rl.micro_batch_size == 2
    )
    sft = derived("Qwen/Qwen2.5-0.5B", 288, "sft", engine__gpus=4, sft__batch_size=12)
    assert sft.settings.sft.micro_batch_size == 1
    assert not any(reason.startswith(("engine.colocate", "rl.")) for reason in sft.reasons)


def test_without_gpus_nothing_is_derived() -> None:
    given = SettingsSource(overrides={"model.path": "Qwen/Qwen2.5-7B", "engine.device": "cpu"}).load("stage1")
    assert complete(given, "stage1") == Derived(given)


def test_unknown_models_keep_the_defaults_and_unknown_cards_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(topologies, "gpu_count", lambda: 1)
    with pytest.raises(InputError, match=r"engine\.gpu_memory: the driver.*set engine\.gpu_memory to its GB"):
        complete(settings("Qwen/Qwen2.5-7B"), "stage1")
    (tmp_path / "config.json").write_text('{"model_type": "other"}')
    other = settings(str(tmp_path))
    kept = complete(other, "stage1")
    assert kept.settings == other
    assert ["the defaults, not derived" in reason for reason in kept.reasons] == [True]


def test_the_driver_says_how_much_memory_the_smallest_card_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In MiB, one line per card, as its program prints it."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 81559\necho 40960\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + os.environ["PATH"])
    assert card_bytes(settings("m")) == 40960 * 2**20
    assert card_bytes(settings("m", engine__gpu_memory=80.0)) == 80 * GB
