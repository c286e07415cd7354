"""Training of adapters: vLLM samples from merged weights, and a whole model is saved.

The expected weights are computed here from the adapters in DeepSpeed's checkpoints: base + alpha / rank x B A.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from r1searcher.common.files import read_rows
from r1searcher.errors import InputError
from r1searcher.models.folder import require_layers
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import trajectory_rows
from tests.engine.toy import World, make_model

pytestmark = pytest.mark.training
torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
pytest.importorskip("openrlhf")
pytest.importorskip("vllm")

RANK, ALPHA = 4, 16
END_OF_TEXT = 0
LORA = ("--set", f"lora.rank={RANK}", "--set", f"lora.alpha={ALPHA}", "--set", "rl.learning_rate=1e-2")


def stage(world: World, name: str, *words: str) -> RunFolder:
    return world.stage1(name, *LORA, *words)


def load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def state_of(run: RunFolder, step: int) -> dict[str, Any]:
    """What DeepSpeed saved: names of PEFT -> tensors. Those of several processes are joined by its own program."""
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    folder, tag = run.checkpoints / "_actor", f"global_step{step}"
    file = folder / tag / "mp_rank_00_model_states.pt"
    if not file.exists():  # ZeRO-3
        return dict(get_fp32_state_dict_from_zero_checkpoint(str(folder), tag))
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=False)["module"]
    return {name: tensor.float() for name, tensor in state.items()}


def merged_by_hand(state: dict[str, Any]) -> dict[str, Any]:
    weights = {}
    for name, tensor in state.items():
        if ".lora_" in name:
            continue
        plain = name.removeprefix("base_model.model.")
        if name.endswith(".base_layer.weight"):
            owner = name.removesuffix(".base_layer.weight")
            a, b = state[f"{owner}.lora_A.default.weight"], state[f"{owner}.lora_B.default.weight"]
            tensor = tensor + (ALPHA / RANK) * (b @ a)
        weights[plain.replace(".base_layer.", ".")] = tensor
    return weights


def with_weights(start: Path, weights: dict[str, Any]) -> Any:
    model = load(start)
    model.load_state_dict(weights)
    return model


def largest_difference(model: Any, episodes: Iterator[dict[str, Any]]) -> float:
    """Between vLLM's recorded log-probabilities and the model's, over all sampled tokens.

    A turn has at least one token in vLLM's sampling: its first one is sampled without the end of text.
    """
    largest = 0.0
    for episode in episodes:
        ids = [token for segment in episode["segments"] for token in segment["token_ids"]]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0]
        position = 0
        for segment in episode["segments"]:
            for offset, said in enumerate(segment.get("logprobs") or ()):
                place = position + offset
                scores = logits[place - 1].clone()
                if offset == 0:
                    scores[END_OF_TEXT] = -torch.inf
                largest = max(largest, abs(float(scores.log_softmax(-1)[ids[place]]) - said))
            position += len(segment["token_ids"])
    return largest


def greedy(model: Any, prompts: list[list[int]]) -> list[list[int]]:
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    return [model.generate(torch.tensor([ids]), **options)[0].tolist() for ids in prompts]


def with_adapters(start: Path, state: dict[str, Any]) -> Any:
    """The model as it is trained, not merged."""
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, target_modules="all-linear")
    model = peft.get_peft_model(load(start), config)
    model.load_state_dict(state)
    return model.eval()


def test_vllm_samples_from_the_merged_weights_and_the_saved_model_has_them(world: World) -> None:
    check_merged(world, stage(world, "lora", "--steps", "2", "--set", "checkpoint.every=1"))


@pytest.mark.long
def test_sharded_weights_are_gathered_before_they_are_merged(world: World) -> None:
    """ZeRO-3 with two processes, over gloo."""
    words = ("--steps", "2", "--set", "checkpoint.every=1", "--set", "engine.zero_stage=3", "--set", "engine.gpus=2")
    check_merged(world, stage(world, "lora-sharded", *words))


def check_merged(world: World, run: RunFolder) -> None:
    """A run of two steps, each with a checkpoint, in fp32."""
    start = world.folder_of("sft").model
    first, last = state_of(run, 1), state_of(run, 2)
    assert all(float(tensor.abs().max()) > 0 for name, tensor in first.items() if ".lora_B." in name)
    unchanged = load(start).state_dict()
    for name, tensor in last.items():
        if ".lora_" not in name:
            plain = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
            assert torch.equal(tensor, unchanged[plain]), f"{name} is not to be trained"

    episodes = list(trajectory_rows(run.trajectories(2)))  # sampled after the first update
    assert largest_difference(with_weights(start, merged_by_hand(first)), iter(episodes)) < 1e-4
    assert largest_difference(load(start), iter(episodes)) > 1e-2, "the update is large enough to be seen"
    assert all(abs(row["vllm_kl"]) < 1e-3 for row in read_rows(run.metrics))

    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in run.model.iterdir()}
    assert not list(run.model.glob("adapter*"))
    saved = load(run.model)
    expected = merged_by_hand(last)
    assert saved.state_dict().keys() == unchanged.keys()
    for name, tensor in saved.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6)
    prompts = [episode["segments"][0]["token_ids"] for episode in episodes[::8]]
    assert greedy(saved, prompts) == greedy(with_adapters(start, last), prompts)


def test_merging_leaves_the_trained_model_as_it_is(tmp_path: Path) -> None:
    """In bf16 too, where adding and subtracting the adapters would not return to the same weights."""
    from r1searcher.engine.openrlhf.patches.lora import in_groups, merged_weights

    plain = load(make_model(tmp_path / "model")).to(torch.bfloat16)
    names = [name for name, _ in plain.named_parameters()]
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, target_modules=["q_proj", "down_proj"])
    model = peft.get_peft_model(plain, config, autocast_adapter_dtype=False)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = list(merged_weights(model, zero_stage=2))
    assert [name for name, _ in found] == names
    expected = merged_by_hand({name: tensor.float() for name, tensor in before.items()})
    for name, tensor in found:
        assert tensor.dtype == torch.bfloat16
        torch.testing.assert_close(tensor.float(), expected[name], rtol=2**-7, atol=2**-9)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [pair for group in in_groups(found) for pair in group] == found


def test_a_layer_that_the_model_does_not_have_is_refused(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    require_layers(model, ("q_proj", "mlp.down_proj"))
    for name in ("qproj", "norm", "proj"):
        with pytest.raises(InputError, match=f"the model has no linear layer '{name}'; it has down_proj, gate_proj"):
            require_layers(model, ("q_proj", name))


@pytest.mark.long
def test_a_killed_run_of_adapters_goes_on_from_its_checkpoint(world: World) -> None:
    words = ("--steps", "4", "--set", "checkpoint.every=2", "--set", "engine.precision=mixed")
    run = stage(world, "resumed", *words)
    for file in (run.summary, run.ending):
        file.unlink(missing_ok=True)
    shutil.rmtree(run.model)
    (run.checkpoints / "_actor" / "latest").write_text("global_step2")
    shutil.rmtree(run.checkpoints / "_actor" / "global_step4")
    stage(world, "resumed", *words)
    rows = list(read_rows(run.metrics))
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(abs(row["vllm_kl"]) < 1e-2 for row in rows), "vLLM gets the adapters of the checkpoint"
    saved = load(run.model)
    expected = merged_by_hand(state_of(run, 4))
    for name, tensor in saved.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6)


@pytest.mark.long
def test_an_sft_of_adapters_saves_a_whole_model(world: World) -> None:
    words = ("--set", f"lora.rank={RANK}", "--set", "lora.target_modules=['q_proj','up_proj']", "--steps", "4")
    world.run("sft", str(world.settings), "--name", "sft-lora", *words)
    saved, start = load(world.folder_of("sft-lora").model).state_dict(), load(world.folder / "model").state_dict()
    changed = {name for name, tensor in saved.items() if not torch.equal(tensor, start[name])}
    assert changed == {name for name in start if "q_proj.weight" in name or "up_proj.weight" in name}


@pytest.mark.long
def test_the_drift_of_a_loss_that_does_not_report_it_is_watched(world: World) -> None:
    run = stage(world, "lora-gspo", "--steps", "2", "--set", "rl.algorithm=gspo")
    assert all(0 < abs(row["vllm_kl"]) < 1e-3 for row in read_rows(run.metrics))
