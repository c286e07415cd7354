"""Presets and settings on 1, 4, 8 and 2 x 8 cards: what OpenRLHF's own main says, and what we say first."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from r1searcher.config.overrides import toml_value
from r1searcher.config.settings import Settings, presets
from r1searcher.config.source import SettingsSource
from r1searcher.engine.openrlhf.algorithms import ALGORITHMS
from r1searcher.engine.openrlhf.arithmetic import placement_problems
from r1searcher.engine.openrlhf.flags import EngineRun, argv, rl_flags
from r1searcher.engine.topology import topology_of
from r1searcher.planning.derive import Machine, derive
from r1searcher.planning.shapes import shape_of
from r1searcher.runs.folder import RunFolder

CARDS = ((1, 1), (1, 4), (1, 8), (2, 8))
PAPER = ("paper-llama-8b", "paper-qwen-7b")
ONE_CARD = ("qwen2.5-1.5b", "qwen2.5-3b-lora")

VARIANTS: dict[str, dict[str, Any]] = {
    "batch of 100": {"rl.batch_size": 128, "rl.micro_batch_size": 3},
    "uneven rollouts": {"rl.questions_per_step": 65, "rl.batch_size": 16, "rl.micro_batch_size": 1},
    "few rollouts": {
        "rl.questions_per_step": 2,
        "rl.samples_per_question": 2,
        "rl.batch_size": 4,
        "rl.micro_batch_size": 1,
    },
    "large forward micro-batch": {"rl.forward_micro_batch_size": 48},
    "two engines": {"engine.vllm_engines": 2},
    "tensor parallel 4": {"engine.tensor_parallel": 4, "engine.vllm_engines": 2},
    "tensor parallel 3": {"engine.tensor_parallel": 3, "engine.vllm_engines": 3},
    "ZeRO 0": {"engine.zero_stage": 0},
    "separate": {"engine.colocate": False, "rl.kl_coef": 0.01},
    "Adam offload": {"engine.adam_offload": True},
    "Adam offload without ZeRO": {"engine.adam_offload": True, "engine.zero_stage": 0, "engine.colocate": False},
    "reference offload": {"engine.reference_offload": True, "rl.kl_coef": 0.01},
    "reference offload at ZeRO 2": {"engine.reference_offload": True, "rl.kl_coef": 0.01, "engine.zero_stage": 2},
    "offload of no reference": {"engine.reference_offload": True},
    "packing": {"engine.packing": True, "engine.attention": "flash_attention_4"},
    "packing with sdpa": {"engine.packing": True},
    "dynamic batch": {"rl.dynamic_batch": True, "engine.attention": "flash_attention_2"},
    "dynamic batch with sdpa": {"rl.dynamic_batch": True, "rl.max_tokens_per_gpu": 16384},
    "dynamic batch of few tokens": {
        "rl.dynamic_batch": True,
        "rl.max_tokens_per_gpu": 4096,
        "engine.attention": "flash_attention_4",
    },
    "dynamic batch, uneven": {
        "rl.dynamic_batch": True,
        "rl.questions_per_step": 3,
        "rl.samples_per_question": 4,
        "rl.batch_size": 12,
        "rl.forward_micro_batch_size": 4,
        "engine.attention": "flash_attention_4",
    },
    "limit of no dynamic batch": {"rl.max_tokens_per_gpu": 16384},
    "ahead": {"engine.async_steps": 2},
    "ahead, separate": {"engine.async_steps": 2, "engine.colocate": False, "engine.partial_rollouts": True},
    "partial, not ahead": {"engine.partial_rollouts": True, "engine.colocate": False},
    "one sample": {"rl.samples_per_question": 1, "rl.algorithm": "reinforce++", "rl.batch_size": 64},
}


@dataclass(frozen=True)
class Case:
    name: str
    settings: Settings

    @property
    def problems(self) -> list[str]:
        return placement_problems(self.settings, topology_of(self.settings), "stage2")

    def words(self) -> list[str]:
        run = EngineRun(
            settings=self.settings,
            run=RunFolder(Path("/tmp/run")),
            model=Path("/tmp/model"),
            topology=topology_of(self.settings),
        )
        return argv(rl_flags(run))


def case(
    preset: str, cards: tuple[int, int], variant: str = "", overrides: Mapping[str, Any] = MappingProxyType({})
) -> Case:
    nodes, gpus = cards
    placement: dict[str, Any] = {"engine.nodes": nodes, "engine.gpus": gpus, "engine.device": "gpu"}
    own = {"engine.ray_address": "auto", "engine.precision": "bf16", "engine.freeze_lower_layers": 0}
    chosen = {**own, **placement, **VARIANTS.get(variant, {}), **overrides}
    settings = SettingsSource(preset=preset, overrides=chosen).load("stage2")
    if settings.model.path:  # not set by the demo's preset
        settings = derive(settings, "stage2", shape_of(settings.model.path), Machine(card=int(80e9))).settings
    return Case(f"{preset} on {nodes} x {gpus}{': ' * bool(variant)}{variant}", settings)


class Said(NamedTuple):
    """What OpenRLHF's main says to a command line. `shares` are micro-batches per process of the trained model,
    `replaced` the flags to which it gave values of its own."""

    accepted: bool
    message: str
    shares: list[int]
    gpus: float
    replaced: list[str]


def asked(cases: Sequence[Case]) -> list[Said]:
    """What OpenRLHF's main says to each command line; one process and one Ray session for all."""
    program = Path(__file__).with_name("openrlhf_parser.py")
    lines = "".join(json.dumps(one.words()) + "\n" for one in cases)
    done = subprocess.run([sys.executable, str(program)], input=lines, capture_output=True, text=True, check=False)
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(said) == len(cases), done.stderr[-2000:]
    return [Said(*one) for one in said]


def check(one: Case, said: Said) -> None:
    """The engine accepts the case, with equal shares on as many GPUs as we say that it needs."""
    name = f"{one.settings.rl.algorithm}, {one.name}"
    assert said.accepted, f"{name}: {said.message}"
    assert len(set(said.shares)) == 1, f"{name}: {said.shares}"
    assert len(said.shares) == topology_of(one.settings).trainer_gpus
    assert said.gpus == topology_of(one.settings).gpus, name
    assert said.replaced == [], name


ALL_SETTINGS = {
    "rl.kl_coef": 0.01,
    "rl.kl_estimator": "k2",
    "rl.kl_in_loss": True,
    "rl.clip_range": [0.2, 0.28],
    "rl.dual_clip": 3.0,
    "rl.loss_aggregation": "trajectory",
    "rl.entropy_coef": 0.001,
}


@pytest.fixture(scope="module")
def engine() -> dict[str, list[tuple[Case, Said]]]:
    """Cases by what they vary, with the engine's answers, all from one Ray session."""
    by_preset = [case(preset, cards) for preset in presets() for cards in CARDS]
    by_preset += [case("paper-qwen-7b", cards, variant) for variant in VARIANTS for cards in CARDS]
    by_preset += [case(preset, (1, 8), "ahead, separate") for preset in presets()]
    by_algorithm = [
        case("paper-qwen-7b", cards, overrides={"rl.algorithm": name, **more})
        for name in ALGORITHMS.builtin
        for cards in ((1, 1), (1, 8))
        for more in ({}, ALL_SETTINGS)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("R1S_ALLOW_UNTESTED_VERSIONS", "1")  # either environment has the parser
        said = asked([*by_preset, *by_algorithm])
    pairs = list(zip([*by_preset, *by_algorithm], said, strict=True))
    return {"presets": pairs[: len(by_preset)], "algorithms": pairs[len(by_preset) :]}


@pytest.mark.training
def test_what_we_accept_the_engine_accepts_with_equal_shares(engine: dict[str, list[tuple[Case, Said]]]) -> None:
    """And the engine's refusals are ours, said earlier."""
    refused_by_ours = 0
    for one, said in engine["presets"]:
        refused_by_ours += bool(one.problems)
        if not one.problems:
            check(one, said)
    assert 5 < refused_by_ours < len(engine["presets"]) - 10  # the cases reach both answers


@pytest.mark.training
def test_the_engine_accepts_every_algorithm_on_one_and_on_eight_cards(
    engine: dict[str, list[tuple[Case, Said]]],
) -> None:
    assert [one.problems for one, _ in engine["algorithms"] if one.problems] == []
    for one, said in engine["algorithms"]:
        check(one, said)


def test_adapters_of_a_critic_are_refused() -> None:
    one = case("qwen2.5-3b-lora", (1, 1), overrides={"rl.algorithm": "ppo"})
    assert ["set lora.rank = 0" in problem for problem in one.problems] == [True]


@pytest.mark.parametrize("preset", PAPER)
@pytest.mark.parametrize("cards", [(1, 8), (2, 8)])
def test_the_papers_presets_fit_eight_and_sixteen_cards(preset: str, cards: tuple[int, int]) -> None:
    assert case(preset, cards).problems == []


@pytest.mark.parametrize("preset", ONE_CARD)
@pytest.mark.parametrize("cards", [(1, 1), (1, 4), (1, 8)])
def test_the_presets_of_one_card_fit_more_cards_too(preset: str, cards: tuple[int, int]) -> None:
    assert case(preset, cards).problems == []


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("cards", CARDS)
def test_what_a_refusal_says_to_set_is_accepted(variant: str, cards: tuple[int, int]) -> None:
    settings = case("paper-qwen-7b", cards, variant).settings
    for _ in range(4):  # one remedy may bring up the next question
        problems = placement_problems(settings, topology_of(settings), "stage2")
        if not problems:
            return
        found = re.findall(r"(\w+)\.(\w+) = (\S+)", problems[0].rpartition("set ")[2].split(", or ")[0])
        assert found, problems[0]
        changed = settings.model_dump()
        for section, key, value in found:
            changed[section][key] = toml_value(value)
        settings = Settings.model_validate(changed)
    pytest.fail(problems[0])


def test_sft_batches_fit_the_cards() -> None:
    settings = SettingsSource(preset="paper-qwen-7b", overrides={"engine.ray_address": "auto"}).load("sft")
    assert placement_problems(settings, topology_of(settings), "sft") == []
    small = settings.model_copy(
        update={"sft": settings.sft.model_copy(update={"batch_size": 8, "micro_batch_size": 8})}
    )
    assert placement_problems(small, topology_of(small), "sft") == [
        "sft.batch_size = 8: must be a multiple of sft.micro_batch_size x GPUs = 8 x 8 = 64; set "
        "sft.micro_batch_size = 1, or sft.batch_size = 64"
    ]


def test_a_folder_that_the_engine_would_split_is_refused(tmp_path: Path) -> None:
    settings = case("paper-qwen-7b", (1, 8)).settings.model_copy(update={"output": str(tmp_path / "a,b")})
    [problem] = placement_problems(settings, topology_of(settings), "stage2")
    assert "contains a comma" in problem
