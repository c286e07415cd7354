"""What OpenRLHF's strategy gives DeepSpeed, and what follows: updates of dynamic batches, Adam in host memory."""

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.training
pytest.importorskip("openrlhf")

STRATEGY = """
import json, os, socket, sys
from types import SimpleNamespace
with socket.create_server(("127.0.0.1", 0)) as free:
    port = str(free.getsockname()[1])
os.environ |= {"DS_ACCELERATOR": "cpu", "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_PORT": port}
os.environ["MASTER_ADDR"] = "127.0.0.1"
from r1searcher.engine import import_patches
from r1searcher.engine.openrlhf.patches import flash_attention, updates
given = json.loads(sys.argv[1])
import_patches.install([*flash_attention.PATCHES, *(updates.PATCHES if given["patched"] else [])])
from openrlhf.utils.deepspeed import DeepspeedStrategy
ds = SimpleNamespace(param_dtype="bf16", adam_offload=given["adam_offload"], grad_accum_dtype=given["dtype"])
args = SimpleNamespace(ds=ds, train=SimpleNamespace(dynamic_batch_enable=given["dynamic"]))
strategy = DeepspeedStrategy(zero_stage=given["stage"], args=args)
adam = {"type": "AdamW", "params": {"lr": 0.1}}
config = strategy.get_ds_train_config(adam, max_norm=1.0)
"""

CONFIG = "print(json.dumps(config))"

UPDATE = """
import deepspeed, torch
adam["params"].pop("fused", None)
adam["params"]["torch_adam"] = True  # DeepSpeed's own would be compiled
config |= {"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1}
config["zero_optimization"] = {"stage": given["stage"]}
norms = []
for batches in ([[0, 1, 2, 3]], [[0], [1, 2, 3]]):
    torch.manual_seed(0)
    engine, *_ = deepspeed.initialize(model=torch.nn.Linear(8, 4), config=dict(config))
    rows = torch.randn(4, 8, generator=torch.Generator().manual_seed(1)).bfloat16()
    for batch in batches:
        engine.backward((engine(rows[batch]).float() ** 2).sum())
    engine.step()
    norms.append(float(engine.get_global_grad_norm()))
print(json.dumps(norms))
"""


def answer(program: str, **changed: Any) -> Any:
    given = {"patched": True, "stage": 2, "dynamic": True, "adam_offload": False, "dtype": "bf16", **changed}
    command = [sys.executable, "-c", STRATEGY + program, json.dumps(given)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("stage", "dtype"), [(1, "bf16"), (2, "bf16"), (3, "fp32")])
def test_an_update_has_the_gradients_of_all_its_dynamic_batches(stage: int, dtype: str) -> None:
    """The norm before clipping, as with all rows in one pass."""
    whole, two = answer(UPDATE, stage=stage, dtype=dtype)
    assert two == pytest.approx(whole, rel=0.02)


def test_the_stock_strategy_loses_all_but_the_last() -> None:
    whole, two = answer(UPDATE, patched=False)
    assert two < 0.9 * whole


def test_adam_in_host_memory_is_deepspeeds_own_and_on_gpus_torchs() -> None:
    """DeepSpeed refuses another optimizer than its own for states in host memory (`_enforce_cpu_offload`)."""
    here, offloaded = answer(CONFIG), answer(CONFIG, adam_offload=True)
    assert here["optimizer"]["params"] == {"lr": 0.1, "torch_adam": True, "fused": True}
    assert offloaded["optimizer"] == {"type": "AdamW", "params": {"lr": 0.1}}
    devices = [config["zero_optimization"]["offload_optimizer"]["device"] for config in (here, offloaded)]
    assert devices == ["none", "cpu"]
    assert "managed_gradient_accumulation" not in answer(CONFIG, dynamic=False)
