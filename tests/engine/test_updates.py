"""What OpenRLHF's strategy gives DeepSpeed, and what follows: updates of dynamic batches, Adam in host memory."""

import json
from typing import Any

import pytest

from tests.engine.one_process import output_of

pytestmark = pytest.mark.training
pytest.importorskip("openrlhf")

PROGRAM = """
import json, sys
from types import SimpleNamespace
from r1searcher.engine import import_patches
from r1searcher.engine.openrlhf.patches import flash_attention, updates
import_patches.install([*flash_attention.PATCHES, *(updates.PATCHES if sys.argv[1] == "patched" else [])])
import deepspeed, torch
from openrlhf.utils.deepspeed import DeepspeedStrategy

def config(stage=2, dtype="bf16", dynamic=True, adam_offload=False):
    ds = SimpleNamespace(param_dtype="bf16", adam_offload=adam_offload, grad_accum_dtype=dtype)
    args = SimpleNamespace(ds=ds, train=SimpleNamespace(dynamic_batch_enable=dynamic))
    strategy = DeepspeedStrategy(zero_stage=stage, args=args)
    return strategy.get_ds_train_config({"type": "AdamW", "params": {"lr": 0.1}}, max_norm=1.0)

def norm(batches, stage, dtype):
    # The gradients' norm, before clipping, of one update; DeepSpeed's own Adam would be compiled.
    adam = {"type": "AdamW", "params": {"lr": 0.1, "torch_adam": True}}
    chosen = {**config(stage, dtype), "zero_optimization": {"stage": stage}, "optimizer": adam}
    torch.manual_seed(0)
    engine, *_ = deepspeed.initialize(model=torch.nn.Linear(8, 4), config=chosen)
    rows = torch.randn(4, 8, generator=torch.Generator().manual_seed(1)).bfloat16()
    for batch in batches:
        engine.backward((engine(rows[batch]).float() ** 2).sum())
    engine.step()
    return float(engine.get_global_grad_norm())

norms = {
    stage: [norm([[0, 1, 2, 3]], stage, dtype), norm([[0], [1, 2, 3]], stage, dtype)]
    for stage, dtype in ((1, "bf16"), (2, "bf16"), (3, "fp32"))
}
configs = {"dynamic": config(), "fixed": config(dynamic=False), "offloaded": config(adam_offload=True)}
print(json.dumps({"norms": norms, "configs": configs}))
"""


def answer(patches: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(output_of(PROGRAM, patches).splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def patched() -> dict[str, Any]:
    return answer("patched")


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_an_update_has_the_gradients_of_all_its_dynamic_batches(stage: int, patched: dict[str, Any]) -> None:
    """As with all rows in one pass."""
    whole, two = patched["norms"][str(stage)]
    assert two == pytest.approx(whole, rel=0.02)


def test_the_stock_strategy_loses_all_but_the_last() -> None:
    for stage, (whole, two) in answer("stock")["norms"].items():
        assert (two < 0.9 * whole) == (stage != "3")


def test_adam_in_host_memory_is_deepspeeds_own(patched: dict[str, Any]) -> None:
    """DeepSpeed refuses another one for states there (`_enforce_cpu_offload`)."""
    offloaded, fixed = patched["configs"]["offloaded"], patched["configs"]["fixed"]
    assert offloaded["optimizer"] == {"type": "AdamW", "params": {"lr": 0.1}}
    assert offloaded["zero_optimization"]["offload_optimizer"]["device"] == "cpu"
    assert fixed["zero_optimization"]["offload_optimizer"]["device"] == "none"
    assert "managed_gradient_accumulation" not in fixed
