"""Whether DeepSpeed adds up gradients of micro-batches in the dtype that it is given."""

import pytest

from tests.engine.one_process import output_of

pytestmark = pytest.mark.training
pytest.importorskip("deepspeed")

PROGRAM = """
import sys
import deepspeed, torch
from deepspeed.utils import safe_get_full_grad
config = {
    "train_micro_batch_size_per_gpu": 1,
    "gradient_accumulation_steps": 64,
    "bf16": {"enabled": True},
    "zero_optimization": {"stage": 3},
    "data_types": {"grad_accum_dtype": sys.argv[1]},
    "optimizer": {"type": "AdamW", "params": {"torch_adam": True}},
}
engine, *_ = deepspeed.initialize(model=torch.nn.Linear(4, 1, bias=False), config=config)
for number in range(64):
    engine.backward(engine(torch.full((1, 4), 32.0 if number else 64 * 256.0, dtype=torch.bfloat16)).sum())
    if number < 63:
        engine.step()
print("gradient", safe_get_full_grad(engine.module.weight).flatten()[0].item())
"""


@pytest.mark.parametrize(("dtype", "total"), [("fp32", 256 + 63 * 0.5), ("bf16", 256.0)])
def test_small_gradients_are_not_rounded_away_in_fp32(dtype: str, total: float) -> None:
    """The mean's terms are 256 and 63 times 0.5; in bf16 256 + 0.5 is 256."""
    assert f"gradient {total}" in output_of(PROGRAM, dtype)
