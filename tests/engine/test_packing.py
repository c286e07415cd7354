"""Training with dynamic batches, which are packed, on two processes: the tokens of the rollouts with their own ids."""

import re

import pytest

from r1searcher.common.files import read_rows
from tests.engine.toy import World

pytestmark = [pytest.mark.training, pytest.mark.long]
pytest.importorskip("openrlhf")
pytest.importorskip("vllm")


def test_packed_trajectories_have_the_log_probabilities_that_vllm_sampled_them_with(world: World) -> None:
    """After an update too. Log-probabilities of tokens that are packed together would differ by nats if one of them saw
    another one's context; rounding is some 1e-5."""
    tokens = ("--set", "rl.dynamic_batch=true", "--set", "rl.max_tokens_per_gpu=256")
    run = world.stage1("packed", *tokens, "--set", "engine.gpus=2", "--steps", "2")
    rows = list(read_rows(run.metrics))
    assert [row["step"] for row in rows] == [1, 2]
    assert all(0 < abs(row["vllm_kl"]) < 1e-4 for row in rows), rows
    assert all(row["actor_grad_norm"] > 0 for row in rows)
    passes = re.findall(r"Train epoch \[1/1\]: 100%\|[^|]*\| (\d+)/\1 \[", run.log.read_text("utf-8", "replace"))
    assert min(map(int, passes)) > 1, "an update had several passes"
