"""The padding functions that replace flash-attn's: packed samples give what padded ones give."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.training


def test_packed_samples_give_the_log_probabilities_of_padded_ones() -> None:
    """OpenRLHF's own actor, on three samples of different lengths: expected values are those without packing."""
    program = Path(__file__).with_name("packed_actor.py")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout[done.stdout.index("{") :])
    assert found["log_probs"] < 1e-4
    assert found["gradient"] < 1e-3
    assert found["spread"] > 0.1


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
    from r1searcher.engine import import_patches
    from r1searcher.engine.openrlhf.patches import flash_attention

    import_patches.install(flash_attention.PATCHES)
    import openrlhf.models.ring_attn_utils as utils

    assert utils.unpad_input is flash_attention.unpad_input or flash_attention.has_flash_attention_2()
    assert flash_attention.has_flash_attention_2() or "flash_attn.bert_padding" not in sys.modules
