"""Plans, compared with DeepSpeed's own estimators and with transformers' own count of parameters."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from r1searcher.config.settings import Lora
from r1searcher.config.source import SettingsSource
from r1searcher.engine.topology import topology_of
from r1searcher.planning.memory import GIB, host_states, states, trained_model
from r1searcher.planning.plan import Plan, make_plan
from r1searcher.planning.shapes import _FAMILIES, _KNOWN, shape_of
from tests.common.servers import answer, raw_server

GB80, GB24 = int(80e9), int(24e9)


def plan(preset: str, card: int, **overrides: Any) -> Plan:
    given = {key.replace("__", "."): value for key, value in overrides.items()}
    settings = SettingsSource(preset=preset, overrides=given).load("stage2")
    return make_plan(settings, shape_of(settings.model.path), card)


@pytest.mark.training
@pytest.mark.parametrize("name", _KNOWN)
def test_parameters_are_those_that_transformers_counts(name: str) -> None:
    """A model of the same `config.json`, without memory for its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = _KNOWN[name].model_dump(exclude_none=True)
    kind = config.pop("model_type")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **config))
    assert shape_of(name).parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.training
@pytest.mark.parametrize("family", _FAMILIES)
@pytest.mark.parametrize("said", [True, False])
def test_parameters_of_a_family_are_counted_from_its_config_alone(family: str, said: bool, tmp_path: Path) -> None:
    """Where it does not say whether head and embeddings are one matrix, transformers' default for the family holds."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"num_hidden_layers": 3, "hidden_size": 64, "intermediate_size": 128, "vocab_size": 500, "head_dim": 32}
    config = AutoConfig.for_model(family, **sizes, num_attention_heads=4, num_key_value_heads=2, pad_token_id=0)
    config.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    table = json.loads(file.read_text())
    file.write_text(json.dumps({key: table[key] for key in table if said or key != "tie_word_embeddings"}))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path))
    assert shape_of(str(tmp_path)).parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.training
@pytest.mark.parametrize("name", ["Qwen/Qwen2.5-7B", "meta-llama/Llama-3.1-8B"])
@pytest.mark.parametrize("cards", [1, 4, 8, 16])
def test_states_are_within_ten_percent_of_deepspeeds_estimators(name: str, cards: int) -> None:
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    shape = shape_of(name)
    size = shape.parameters
    _, zero2 = estimate_zero2_model_states_mem_needs(size, num_gpus_per_node=cards, cpu_offload=False)
    _, zero3, _ = estimate_zero3_model_states_mem_needs(
        size, shape.vocabulary * shape.hidden, num_gpus_per_node=cards, cpu_offload=False
    )
    assert sum(states(shape, 2, cards).values()) == pytest.approx(zero2, rel=0.1)
    assert sum(states(shape, 3, cards).values()) == pytest.approx(zero3, rel=0.1)


@pytest.mark.training
@pytest.mark.parametrize("name", ["Qwen/Qwen2.5-7B", "meta-llama/Llama-3.1-8B"])
@pytest.mark.parametrize("cards", [1, 4, 8, 16])
def test_adam_in_host_memory_takes_what_deepspeeds_estimators_say(name: str, cards: int) -> None:
    """On the cards and on the host; parameters stay on the cards."""
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    shape = shape_of(name)
    settings = SettingsSource(preset="paper-qwen-7b", overrides={"engine.gpus": cards}).load("stage2")
    placed = topology_of(settings, "gpu")
    host2, card2 = estimate_zero2_model_states_mem_needs(shape.parameters, num_gpus_per_node=cards, cpu_offload=True)
    host3, card3, _ = estimate_zero3_model_states_mem_needs(
        shape.parameters, shape.vocabulary * shape.hidden, num_gpus_per_node=cards, cpu_offload_params=False
    )
    for stage, card, host in ((2, card2, host2), (3, card3, host3)):
        assert sum(states(shape, stage, cards, adam_offload=True).values()) == pytest.approx(card, rel=0.1)
        assert host_states(shape, stage, placed) == pytest.approx(host, rel=0.1)


def test_models_in_host_memory_leave_the_cards() -> None:
    here = plan("paper-llama-8b", GB80)
    there = plan("paper-llama-8b", GB80, engine__adam_offload=True, engine__reference_offload=True)
    assert there.memory.training.keys() == here.memory.training.keys() - {"optimizer", "gradients"}
    moved = here.memory.training["reference model"] - there.memory.training["reference model"]
    assert there.memory.totals[0] < here.memory.totals[0] - moved
    assert there.host_memory > here.host_memory + 2 * here.shape.parameters
    assert min(there.hours_per_step) > min(here.hours_per_step), "the update is slower there"


def test_a_dynamic_batch_is_counted_by_its_tokens() -> None:
    every = {"engine__head_on_action_tokens": False}
    fixed = plan("paper-qwen-7b", GB80, rl__micro_batch_size=2, **every).memory.training
    dynamic = plan("paper-qwen-7b", GB80, rl__dynamic_batch=True, rl__max_tokens_per_gpu=3 * 8192).memory.training
    for item in ("activations", "logits"):
        assert dynamic[item] == pytest.approx(1.5 * fixed[item], rel=1e-6)


@pytest.mark.parametrize("preset", ["paper-qwen-7b", "paper-llama-8b"])
def test_the_papers_models_fit_eight_cards_of_80_gb_and_not_one_of_24(preset: str) -> None:
    assert plan(preset, GB80).fits
    small = plan(preset, GB24, engine__gpus=1)
    assert not small.fits, "with Adam in host memory either"
    assert small.settings.engine.adam_offload
    assert plan(preset, GB24, engine__gpus=1, engine__adam_offload=False).memory.peak > 4 * GB24


def test_adapters_of_3b_fit_one_card_of_24_gb_and_all_weights_do_not() -> None:
    adapters = plan("qwen2.5-3b-lora", GB24)
    assert adapters.fits, adapters.memory
    assert not plan("qwen2.5-3b-lora", GB24, lora__rank=0, engine__adam_offload=False).fits
    assert adapters.memory.training["weights"] > 2 * adapters.shape.parameters  # frozen, but there


@pytest.mark.training
@pytest.mark.parametrize("name", ["Qwen/Qwen2.5-3B", "meta-llama/Llama-3.1-8B"])
@pytest.mark.parametrize("targets", [(), ("q_proj", "v_proj")])
def test_adapters_are_those_that_peft_counts(name: str, targets: tuple[str, ...]) -> None:
    import peft
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = _KNOWN[name].model_dump(exclude_none=True)
    kind = config.pop("model_type")
    lora = peft.LoraConfig(r=16, target_modules=list(targets) or "all-linear", task_type="CAUSAL_LM")
    with torch.device("meta"):
        model = peft.get_peft_model(AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **config)), lora)
    trained, everything = model.get_nb_trainable_parameters()
    assert shape_of(name).adapter_parameters(16, targets) == trained
    assert trained_model(shape_of(name), Lora(rank=16, target_modules=targets)) == everything


def test_a_shape_comes_from_the_hub_that_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "Qwen/Qwen2.5-7B"
    monkeypatch.setenv("R1S_CACHE", str(tmp_path))
    with raw_server(answer(_KNOWN[name].model_dump_json(exclude_none=True).encode())) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert shape_of("someone/tuned") == shape_of(name)
    assert b"GET /someone/tuned/resolve/main/config.json HTTP/1.1" in b"".join(hub.requests)


def test_a_change_that_a_plan_names_makes_it_fit() -> None:
    large = plan("paper-qwen-7b", GB80, rl__micro_batch_size=16, rl__forward_micro_batch_size=2)
    assert not large.fits
    assert large.change.startswith("rl.micro_batch_size = ")
    size = int(large.change.rpartition(" = ")[2])
    assert plan("paper-qwen-7b", GB80, rl__micro_batch_size=size, rl__forward_micro_batch_size=2).fits


def test_a_change_that_takes_host_memory_comes_before_a_shorter_context() -> None:
    full = plan("qwen2.5-1.5b", GB24, rl__micro_batch_size=1, engine__adam_offload=False, episode__max_context=2048)
    assert full.change == "engine.adam_offload = true"
    assert plan("qwen2.5-1.5b", GB24, rl__micro_batch_size=1, episode__max_context=2048, engine__adam_offload=True).fits


def test_logits_of_long_contexts_are_counted() -> None:
    """Two rows of 8,192 tokens and 152,064 words: 30.8 GiB, as measured with the same peak per byte."""
    items = plan("paper-qwen-7b", GB80, rl__micro_batch_size=2, engine__head_on_action_tokens=False).memory.training
    assert items["logits"] / GIB == pytest.approx(30.8, rel=0.01)
    written = plan("paper-qwen-7b", GB80, rl__micro_batch_size=2).memory.training  # nine turns of 512 tokens
    assert written["logits"] / GIB == pytest.approx(30.8 * 9 * 512 / 8192, rel=0.01)


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "r1searcher.cli", "plan", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_prints_a_plan_and_exits_with_2_where_it_does_not_fit() -> None:
    fits = run("--preset", "paper-qwen-7b", "--json")
    assert fits.returncode == 0, fits.stderr
    found = json.loads(fits.stdout)
    assert found["fits"]
    assert found["model"]["parameters"] == 7_615_616_512
    assert found["rollouts_per_step"] == 1024
    too_large = run("--preset", "paper-qwen-7b", "--gpus", "1", "--gpu-memory", "24")
    assert too_large.returncode == 2
    assert "a card would need" in too_large.stderr
    assert "Traceback" not in too_large.stderr


def test_the_command_repeats_what_a_stage_would_refuse_with_its_remedy() -> None:
    refused = run("--preset", "paper-qwen-7b", "--set", "engine.packing=true")
    assert refused.returncode == 2
    assert refused.stderr.strip().endswith('set engine.attention = "flash_attention_4"')


def test_no_plan_without_a_model() -> None:
    done = run("--preset", "demo")
    assert done.returncode == 2
    assert "model.path = ''" in done.stderr


def test_a_plan_imports_no_torch() -> None:
    code = "import sys, r1searcher.planning.command; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_critic_takes_as_much_disk_and_states_as_the_policy() -> None:
    policy = plan("paper-qwen-7b", GB80).as_json()
    both = plan("paper-qwen-7b", GB80, rl__algorithm="ppo").as_json()
    model = 2 * policy["model"]["parameters"] / GIB
    assert both["checkpoint_disk"] - model == pytest.approx(2 * (policy["checkpoint_disk"] - model), abs=0.2)
    assert both["training"]["critic"] == pytest.approx(model / 8, abs=0.01)  # ZeRO-3 on eight cards
    assert both["host_memory"] > policy["host_memory"]


def test_hours_are_those_of_one_pass_over_the_questions(tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"question": f"question {n}?", "answer": "a"}) + "\n" for n in range(130)))
    one_pass = plan("paper-qwen-7b", GB80, data__train=str(questions))
    assert one_pass.steps == 2  # 64 questions per step
    assert one_pass.hours == tuple(2 * hours for hours in one_pass.hours_per_step)
    assert plan("paper-qwen-7b", GB80, data__train=str(questions), rl__steps=5).steps == 5
    elsewhere = plan("paper-qwen-7b", GB80, data__train=str(tmp_path / "nothing.jsonl"))
    assert (elsewhere.steps, elsewhere.hours) == (None, None)
    assert one_pass.tokens_per_step == (64 * 16 * 200, 64 * 16 * 800)
    assert one_pass.hours_per_step[0] < one_pass.hours_per_step[1]
