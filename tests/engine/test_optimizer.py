"""The optimizer on GPUs: torch's own AdamW, which is not compiled, as DeepSpeed builds it from OpenRLHF's settings."""

import pytest

from tests.engine.one_process import output_of

pytestmark = pytest.mark.training
pytest.importorskip("deepspeed")
pytest.importorskip("openrlhf")

PROGRAM = """
from r1searcher.engine import import_patches
from r1searcher.engine.openrlhf.patches import flash_attention, updates
import_patches.install([*flash_attention.PATCHES, *updates.PATCHES])
import deepspeed, torch
from openrlhf.utils.deepspeed import deepspeed as openrlhf
adam = {"type": "Adam", "params": {"lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.0}}
def config(offloaded):
    found = openrlhf.get_train_ds_config(offload=False, adam_offload=offloaded, stage=2, zpg=1, optim_config=dict(adam))
    return {**found, "train_micro_batch_size_per_gpu": 1}
engine, *_ = deepspeed.initialize(model=torch.nn.Linear(4, 1), config=config(False))
adamw = engine.basic_optimizer
print(type(adamw).__module__, type(adamw).__name__, adamw.defaults["fused"])
print("on the host:", "torch_adam" in config(True)["optimizer"]["params"])
"""


def test_adam_on_gpus_is_torchs_fused_one_and_is_not_compiled() -> None:
    """DeepSpeed's fused Adam would be compiled by nvcc when the first run starts. Adam on the host stays its own."""
    printed = output_of(PROGRAM)
    assert "torch.optim.adamw AdamW True" in printed
    assert "on the host: False" in printed
