"""The CPU patches against the packages that they patch, in this process and without a run."""

import importlib
import importlib.util
import json
import os
import sys

import pytest

from r1searcher.engine import cpu, environment, import_patches
from r1searcher.engine.openrlhf import workers
from r1searcher.engine.openrlhf.patches import cpu as cpu_patches
from r1searcher.engine.openrlhf.patches import order, recording
from r1searcher.errors import InputError, R1Error

pytestmark = pytest.mark.training
torch = pytest.importorskip("torch")
pytest.importorskip("openrlhf")
pytest.importorskip("vllm")


@pytest.fixture(scope="module", autouse=True)
def patched():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cpu.ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.setenv(cpu.CPU_ENV, cpu.CpuSettings(precision="fp32").to_env())
        patch.setenv(environment.RUN, os.devnull)
        workers.setup()
        yield


def pristine(module: str):
    """A second copy of a module, under another name, that no patch waits for."""
    spec = importlib.util.find_spec(module)
    copy = importlib.util.module_from_spec(importlib.util.spec_from_file_location(f"{module}_pristine", spec.origin))
    copy.__package__ = module.rpartition(".")[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, copy.__name__, copy)
        copy.__spec__.loader.exec_module(copy)
    return copy


@pytest.mark.parametrize(
    "patch",
    [p for p in [*workers.PATCHES["cpu"], *recording.PATCHES] if p.replaces],
    ids=lambda p: p.module,
)
def test_every_name_that_is_patched_exists_and_has_its_reason(patch):
    module = importlib.import_module(patch.module)
    for name in patch.replaces:
        assert import_patches.resolve(module, name) is not None
    assert len(patch.reason) > 30


def test_a_name_that_moved_is_one_clear_sentence():
    import json as module

    with pytest.raises(R1Error, match="json has no loads_moved"):
        import_patches.Patch("json", ("loads_moved",), apply=print)(module)


def test_nothing_is_patched_for_the_cpu_where_the_launcher_does_not_ask(monkeypatch):
    monkeypatch.delenv(cpu.CPU_ENV)
    monkeypatch.setattr(import_patches, "install", lambda patches: pytest.fail("patched without being asked"))
    workers.install_cpu_patches()


def test_versions_for_gpus_are_not_those_installed_for_the_cpu(monkeypatch):
    """Patches act on GPUs too: without a tested vLLM for CUDA nothing is patched."""
    monkeypatch.delenv(cpu.CPU_ENV)
    with pytest.raises(InputError, match=r"vllm 0\.29\.0 \(here: missing\)"):
        workers.setup()


def tiny_network():
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        use_cache=False,  # as OpenRLHF sets it; with a cache transformers does not keep packed samples apart
    )
    return Qwen2ForCausalLM(config)


def batch():
    """Token ids, action mask and attention mask of padded rows, one of them without a single trained token."""
    torch.manual_seed(1)
    ids = torch.randint(0, 96, (4, 20))
    attention = torch.ones_like(ids)
    attention[1, :5] = 0
    actions = (torch.rand(4, 19) < 0.3).long() * attention[:, 1:] * attention[:, :-1]
    actions[3] = 0
    return ids, actions, attention


def passed_through(actor_class, network, rows, packed):
    """Log-probabilities, entropies of the masked tokens, logits, and gradients of a loss of both."""
    ids, actions, attention = rows
    actor = actor_class(network, temperature=0.7)
    actor.packing_samples = packed
    network.zero_grad()
    log_probs, output = actor(ids, actions, attention_mask=attention, return_output=True, return_entropy=True)
    entropy = output.entropy * actions
    weights = torch.randn(log_probs.shape, generator=torch.Generator().manual_seed(2))
    ((log_probs + 0.1 * entropy) * weights).sum().backward()
    gradients = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    return log_probs.detach(), entropy.detach(), output["logits"], gradients


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("trained", [True, False])
def test_the_head_on_action_tokens_gives_the_stock_log_probabilities_and_gradients(packed, trained):
    """Without any trained token too: the head still needs a gradient, which the other processes wait for."""
    from openrlhf.models.actor import Actor

    stock_actor = pristine("openrlhf.models.actor").Actor
    assert stock_actor.forward is not Actor.forward
    network, (ids, actions, attention) = tiny_network(), batch()
    rows = (ids, actions * trained, attention)
    stock, stock_entropy, stock_logits, stock_gradients = passed_through(stock_actor, network, rows, packed)
    ours, our_entropy, our_logits, our_gradients = passed_through(Actor, network, rows, packed)
    assert stock_logits.shape == ((1, 75, 96) if packed else (4, 20, 96))
    assert our_logits.shape == (int(rows[1].sum()), 96)
    torch.testing.assert_close(ours, stock, rtol=0, atol=1e-6)
    torch.testing.assert_close(our_entropy, stock_entropy, rtol=0, atol=1e-5)
    for name, gradient in stock_gradients.items():
        torch.testing.assert_close(our_gradients[name], gradient, rtol=1e-5, atol=2e-6, msg=name)


def test_frozen_lower_layers_get_no_gradient_and_the_others_do():
    network = tiny_network()
    cpu_patches.freeze_lower_layers(network, 2)
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert trained == {
        name
        for name, _ in network.named_parameters()
        if ".layers.2." in name or name in ("model.norm.weight", "lm_head.weight")
    }


def test_freezing_every_layer_is_refused():
    with pytest.raises(InputError, match="nothing to train"):
        cpu_patches.freeze_lower_layers(tiny_network(), 3)


def test_data_comes_in_the_order_of_its_file_and_goes_on_there_after_a_checkpoint():
    import_patches.install(order.PATCHES)
    from openrlhf.utils.deepspeed import DeepspeedStrategy

    rows = list(range(23))

    def loader():
        return DeepspeedStrategy.setup_dataloader(object(), rows, 1, False, True, collate_fn=list)

    whole = [row for [row] in loader()]
    assert whole == rows
    first = loader()
    begun = iter(first)
    taken = [next(begun)[0] for _ in range(8)]
    resumed = loader()
    resumed.load_state_dict(first.state_dict())
    assert taken + [row for [row] in resumed] == rows


def test_a_warm_up_row_has_the_ids_of_an_episode_and_loss_on_its_turn_only(tmp_path):
    from datasets import Dataset
    from transformers import AutoTokenizer

    from tests.engine.toy import make_model

    import_patches.install(order.PATCHES)
    from openrlhf.datasets import SFTDataset

    tokenizer = AutoTokenizer.from_pretrained(make_model(tmp_path))
    row = {"input": "Where is barado?<think>\n\n", "output": "In cordell.</think>"}
    names = {"input_key": "input", "output_key": "output", "apply_chat_template": False}
    strategy = type("Strategy", (), {"args": type("Args", (), {"data": type("Data", (), names)})})
    rows = SFTDataset(Dataset.from_list([row]), tokenizer, 64, strategy, input_template="{}", num_processors=1)
    ids, attention, loss_mask = rows[0]
    before, turn = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in row.values())
    assert ids[0].tolist() == before + turn
    assert attention.sum() == len(before + turn)
    predicted = ids[0, 1:][loss_mask[0, :-1].bool()]
    assert predicted.tolist() == turn


def test_settings_of_the_patches_survive_the_environment(monkeypatch):
    settings = cpu.CpuSettings("mixed", 18, "eager")
    monkeypatch.setenv(cpu.CPU_ENV, settings.to_env())
    assert cpu.CpuSettings.from_env() == settings
    assert json.loads(settings.to_env())["precision"] == "mixed"


def test_the_drift_is_the_number_that_the_engines_loss_reports():
    from openrlhf.models.loss import PolicyLoss
    from openrlhf.trainer.ppo_utils.experience import Experience

    torch.manual_seed(0)
    mask = torch.rand(6, 9) < 0.5
    trainer, sampler = -torch.rand(6, 9), -torch.rand(6, 9)
    loss = PolicyLoss(is_correction_level="token")
    *_, theirs, _ = loss(trainer, trainer, torch.ones(6, 9), mask, sampler, batch_num_tokens=mask.sum())
    experience = Experience(action_mask=mask, action_log_probs=trainer, rollout_log_probs=sampler)
    assert float(recording.rollout_drift_of(experience)) == pytest.approx(float(theirs), rel=1e-5)
    assert recording.rollout_drift_of(Experience(action_mask=mask, action_log_probs=trainer)) is None
