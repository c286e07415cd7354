"""The padding functions that replace flash-attn's: packed samples give what padded ones give."""

from typing import Any

import pytest

pytestmark = pytest.mark.training


@pytest.fixture(scope="module")
def network() -> Any:
    """A random Qwen2 of three layers, in fp32."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(7)
    config = Qwen2Config(
        vocab_size=211,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        attn_implementation="eager",
        use_cache=False,  # as OpenRLHF sets it; with a cache transformers does not separate packed sequences
    )
    return Qwen2ForCausalLM(config).eval()


def test_packed_samples_give_the_log_probabilities_of_padded_ones(network: Any) -> None:
    """OpenRLHF's own actor, on three samples of different lengths: expected values are those without packing."""
    import torch

    from r1searcher.engine import import_patches
    from r1searcher.engine.openrlhf.patches import flash_attention

    import_patches.install(flash_attention.PATCHES)
    from openrlhf.models.actor import Actor

    lengths, width = (5, 9, 12), 12
    tokens = torch.randint(3, 200, (len(lengths), width), generator=torch.Generator().manual_seed(1))
    mask = torch.stack([torch.arange(width) >= width - length for length in lengths]).long()  # padded on the left
    actions = mask[:, 1:] * mask[:, :-1]  # not the first token of a row, which would be predicted from padding
    found = {}
    for packed in (False, True):
        actor = Actor(network)
        actor.packing_samples = packed  # what its constructor sets for a model that it loads itself
        network.zero_grad()
        log_probs = actor(tokens, actions, attention_mask=mask)
        (log_probs * actions).sum().backward()
        found[packed] = (log_probs.detach() * actions, network.model.layers[0].mlp.up_proj.weight.grad.clone())
    assert (found[False][0] - found[True][0]).abs().max() < 1e-4
    assert (found[False][1] - found[True][1]).abs().max() < 1e-3
    assert found[False][0].std() > 0.1


def test_unpad_and_pad_are_inverse() -> None:
    import torch

    from r1searcher.engine.openrlhf.patches.flash_attention import index_first_axis, pad_input, unpad_input

    mask = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 1]])
    hidden = torch.arange(16.0).view(2, 4, 2)
    rows, places, starts, longest, lengths = unpad_input(hidden, mask)
    assert rows.tolist() == [[0, 1], [2, 3], [10, 11], [12, 13], [14, 15]]
    assert (places.tolist(), starts.tolist(), longest, lengths.tolist()) == ([0, 1, 5, 6, 7], [0, 2, 5], 3, [2, 3])
    assert torch.equal(pad_input(rows, places, 2, 4), hidden * mask[:, :, None])
    assert torch.equal(index_first_axis(rows, torch.tensor([4, 0])), torch.tensor([[14.0, 15.0], [0.0, 1.0]]))


def test_flash_attn_looks_absent_after_the_import() -> None:
    import sys

    from r1searcher.engine import import_patches
    from r1searcher.engine.openrlhf.patches import flash_attention

    import_patches.install(flash_attention.PATCHES)
    import openrlhf.models.ring_attn_utils as utils

    assert utils.unpad_input is flash_attention.unpad_input or flash_attention.has_flash_attention_2()
    assert flash_attention.has_flash_attention_2() or "flash_attn.bert_padding" not in sys.modules
