"""The CPU patches against the packages that they patch, in this process and without a run."""

import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

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
    [p for p in [*workers.PATCHES["cpu"], *workers.RUN_PATCHES] if p.replaces],
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


def test_a_vllm_of_another_device_is_not_patched(monkeypatch):
    monkeypatch.delenv(cpu.CPU_ENV)
    monkeypatch.delenv("VLLM_TARGET_DEVICE")
    monkeypatch.setattr(import_patches, "install", lambda patches: pytest.fail("patched without being asked"))
    workers.install_cpu_patches()


def test_a_model_that_is_only_sampled_keeps_vllms_own_arithmetic(monkeypatch):
    monkeypatch.delenv(cpu.CPU_ENV)
    installed = []
    monkeypatch.setattr(import_patches, "install", installed.extend)
    workers.install_cpu_patches()
    assert [patch.module for patch in installed] == ["vllm.v1.sample.ops.topk_topp_sampler"]


def test_tokens_are_drawn_by_their_probabilities(patched):
    """Counts of 20,000 draws of vLLM's own class and of the patched one against the softmax, by a chi-squared test."""
    from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler

    stock = pristine("vllm.v1.sample.ops.topk_topp_sampler").TopKTopPSampler
    torch.manual_seed(5)
    logits = torch.tensor([[2.0, 0.5, -1.0, float("-inf"), 0.0, 1.0], [0.0, 0.0, 0.0, 0.0, 0.0, 3.0]])
    draws, dof = 20_000, (4, 5)
    for sampler, seeded in ((TopKTopPSampler(), False), (TopKTopPSampler(), True), (stock(), False)):
        rows = logits.repeat(draws, 1)
        generators = {row: torch.Generator().manual_seed(row) for row in range(2 * draws if seeded else 0)}
        tokens, _ = sampler.forward_cpu(rows, generators, None, None)
        for row, degrees in enumerate(dof):
            counts = tokens[row::2].bincount(minlength=6).double()
            expected = logits[row].softmax(-1).double() * draws
            assert counts[expected == 0].sum() == 0
            statistic = ((counts - expected) ** 2 / expected)[expected > 0].sum()
            assert statistic < {4: 23.5, 5: 25.7}[degrees]  # p = 1e-4


def test_vllms_cache_has_the_size_of_the_settings(monkeypatch, tmp_path, patched):
    from transformers import LlamaConfig
    from vllm.engine.arg_utils import EngineArgs

    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    LlamaConfig(**shape, vocab_size=32, architectures=["LlamaForCausalLM"]).save_pretrained(tmp_path)
    monkeypatch.setenv(cpu.CPU_ENV, cpu.CpuSettings(kv_cache_gib=0.25).to_env())
    config = EngineArgs(str(tmp_path), skip_tokenizer_init=True, max_model_len=64).create_engine_config()
    assert config.cache_config.kv_cache_memory_bytes == 256 << 20


@pytest.mark.parametrize("mode", ["raw_logprobs", "processed_logits", "processed_logprobs"])
def test_sampling_returns_the_logits_that_vllm_returns(mode, patched):
    from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler

    stock = pristine("vllm.v1.sample.ops.topk_topp_sampler").TopKTopPSampler
    torch.manual_seed(2)
    logits, top_p = torch.randn(4, 50), torch.full((4,), 0.8)
    found, expected = (of(mode).forward_cpu(logits.clone(), {}, None, top_p)[1] for of in (TopKTopPSampler, stock))
    assert (found is None) == (expected is None) == (mode == "raw_logprobs")
    if expected is not None:
        torch.testing.assert_close(found, expected)
        assert found.isinf().any()  # what top-p leaves out


def test_a_seed_draws_the_same_tokens_whatever_is_in_the_batch_with_it(patched):
    from r1searcher.engine.vllm.patches import draw

    torch.manual_seed(1)
    logits = torch.randn(8, 5000)
    alone = [draw(logits[row : row + 1], {0: torch.Generator().manual_seed(row)}).item() for row in range(8)]
    together = draw(logits, {row: torch.Generator().manual_seed(row) for row in range(8)})
    assert together.tolist() == alone


def test_what_training_frees_in_pieces_is_returned_to_the_system():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    class Trainer:
        def ppo_train(self, status):
            pieces = [torch.ones(16 * 1024) for _ in range(4096)]  # 64 KiB each: from the heap, not from mmap
            self.kept = pieces[::2]
            self.most = resident()
            return status

    def left(trainer):
        assert trainer.ppo_train("status") == "status"
        return trainer.most - resident()

    freed = 2048 * 64 * 1024
    assert left(Trainer()) < freed / 2
    cpu_patches.memory_is_returned_after_training(SimpleNamespace(ActorPPOTrainer=Trainer))
    assert left(Trainer()) > 0.8 * freed


def test_versions_for_gpus_are_not_those_installed_for_the_cpu(monkeypatch):
    """Patches act on GPUs too: without a tested vLLM for CUDA nothing is patched."""
    monkeypatch.delenv(cpu.CPU_ENV)
    with pytest.raises(InputError, match=r"vllm 0\.29\.0 \(here: missing\)"):
        workers.setup()


def tiny_network(vocabulary=96):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=vocabulary,
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


SEGMENTS = [
    ["prompt", "Where is barado?<think>\n\n"],
    ["model", "<|begin_of_query|>barado<|end_of_query|>"],
    ["environment", "\n\n<|begin_of_documents|>\nbarado is in cordell.\n<|end_of_documents|>\n\n"],
    ["model", "In cordell.</think>"],
]
GUESS = [["prompt", "Where is cordell?<think>\n\n"], ["model", "</think><answer>barado</answer>"]]


def row_per_turn(segments):
    """A trace for each turn of the model: what is before it is read only."""
    for place, (author, _) in enumerate(segments):
        if author == "model":
            yield [("environment", text) for _, text in segments[:place]] + [segments[place]]


@pytest.fixture
def tokenizer(tmp_path):
    from transformers import AutoTokenizer

    from tests.engine.toy import make_model

    return AutoTokenizer.from_pretrained(make_model(tmp_path))


def sft_rows(traces, tokenizer):
    from datasets import Dataset

    import_patches.install(order.PATCHES)
    from openrlhf.datasets import SFTDataset

    return SFTDataset(Dataset.from_list([{"segments": trace} for trace in traces]), tokenizer, 64, None)


def test_a_trace_has_the_ids_of_an_episode_and_loss_on_the_turns_of_the_model_only(tokenizer):
    [(ids, attention, loss_mask)] = sft_rows([SEGMENTS], tokenizer)
    each = [tokenizer(text, add_special_tokens=False)["input_ids"] for _, text in SEGMENTS]
    assert ids[0].tolist() == [token for segment in each for token in segment]
    assert attention.shape == ids.shape == loss_mask.shape
    assert attention.all()
    predicted = ids[0, 1:][loss_mask[0, :-1].bool()]
    assert predicted.tolist() == each[1] + each[3]
    assert loss_mask[0, -1] == 0


def test_a_turn_is_tokenized_separately_from_the_text_before_it(tokenizer):
    [(ids, _, loss_mask)] = sft_rows([[["prompt", "Where is cord"], ["model", "ell?"]]], tokenizer)
    cut, whole = (
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("Where is cord", "Where is cordell?")
    )
    turn = ids[0].tolist()[len(cut) :]
    assert cut + turn != whole
    assert tokenizer.decode(turn) == "ell?"
    assert loss_mask.sum() == len(turn)


def trained(rows):
    """What is trained in a batch: for each row the number of tokens read before a trained one, and its id."""
    return sorted(
        (tuple(ids[0, : place + 1].tolist()), int(ids[0, place + 1]))
        for ids, _, loss_mask in rows
        for place in loss_mask[0].nonzero()[:, 0].tolist()
    )


def loss_and_gradients(network, rows, dataset):
    """Of one update with the engine's forward pass and loss, which is divided by the update's trained tokens."""
    from openrlhf.models import SFTLoss
    from openrlhf.models.actor import Actor

    inputs, attention, loss_mask = (part.squeeze(1) for part in dataset.collate_fn(rows))
    actor = Actor(network)
    actor.packing_samples = False
    network.zero_grad()
    log_probs, _ = actor(inputs, attention_mask=attention, return_output=True, return_logprobs=True)
    mask = loss_mask[:, :-1]
    loss = SFTLoss()(log_probs, mask, batch_num_tokens=mask.sum(), dp_size=1)
    loss.backward()
    return loss.item(), {name: parameter.grad.clone() for name, parameter in network.named_parameters()}


def test_an_update_on_whole_traces_is_one_on_a_row_for_each_turn(tokenizer):
    """The same tokens after the same contexts, the same loss and the same gradients, in fp32."""
    network = tiny_network(len(tokenizer)).eval()
    whole = sft_rows([SEGMENTS, GUESS], tokenizer)
    turns = sft_rows([*row_per_turn(SEGMENTS), *row_per_turn(GUESS)], tokenizer)
    assert (len(whole), len(turns)) == (2, 3)
    assert trained(list(whole)) == trained(list(turns))
    loss, gradients = loss_and_gradients(network, list(whole), whole)
    expected, expected_gradients = loss_and_gradients(network, list(turns), turns)
    assert loss == pytest.approx(expected, rel=1e-5)
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    assert max(float(gradient.abs().max()) for gradient in gradients.values()) > 1e-3


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
