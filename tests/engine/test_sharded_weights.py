"""Weights that ZeRO-3 shards over two processes on CPU: what was written to them is what the processes keep."""

import subprocess
import sys

import pytest

from r1searcher.engine.environment import one_process
from tests.engine.toy import one_thread

pytestmark = pytest.mark.training
pytest.importorskip("openrlhf")

PROGRAM = """
import sys
from r1searcher.engine import import_patches
from r1searcher.engine.openrlhf.patches import cpu
import_patches.install(cpu.PATCHES if sys.argv[1] == "patched" else [])
import torch, deepspeed
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # it would be compiled, for all-reduce alone
deepspeed.init_distributed("gloo", dist_init_required=True)
with deepspeed.zero.Init(config_dict_or_path={"train_batch_size": 2, "zero_optimization": {"stage": 3}}):
    layers = [torch.nn.Linear(2048, 2048) for _ in range(8)]
wrong = 0
for number, layer in enumerate(layers):
    weights = list(layer.parameters())  # a large one, and one that is gathered at once
    with deepspeed.zero.GatheredParameters(weights, modifier_rank=0):
        if torch.distributed.get_rank() == 0:
            for weight in weights:
                torch.nn.init.constant_(weight, number + 10.0)
    wrong += any(bool((weight.ds_tensor != number + 10.0).any()) for weight in weights)
print("wrong", wrong)
"""


def wrong_layers(patches: str) -> list[int]:
    """Per process."""
    place = {**one_process(), "WORLD_SIZE": "2", "DS_ACCELERATOR": "cpu"}
    settings = {"R1S_CPU": '{"precision": "fp32"}'}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, patches],
            env={**one_thread(), **place, **settings, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said[0][1][-2000:] + said[1][1][-2000:]
    return [int(out.split()[-1]) for out, _ in said]


def test_what_is_written_to_gathered_weights_stays() -> None:
    assert wrong_layers("patched") == [0, 0]


def test_stock_deepspeed_loses_it() -> None:
    assert max(wrong_layers("stock")) > 0
