"""Models of the families that people train, with random weights: two steps of the real engine, and a folder that plain
transformers loads."""

from pathlib import Path

import pytest

from r1searcher.common.files import read_rows
from r1searcher.runs.records import trajectory_rows
from tests.engine.toy import FAMILIES, make_world

pytestmark = [pytest.mark.training, pytest.mark.long]
pytest.importorskip("openrlhf")
pytest.importorskip("vllm")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_of_each_family_trains_two_steps(family: str, tmp_path: Path) -> None:
    """After an SFT, so that episodes have different rewards and every step changes the weights."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    world = make_world(tmp_path, family=family)
    world.run("sft", str(world.settings), "--name", "sft")
    run = world.stage1("two-steps", "--steps", "2")
    rows = list(read_rows(run.metrics))
    assert [row["step"] for row in rows] == [1, 2]
    assert all(abs(row["vllm_kl"]) < 1e-3 for row in rows), "rollouts come from the trained weights"
    assert len({episode["reward"] for episode in trajectory_rows(run.trajectories(1))}) > 1

    start, trained = (
        AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
        for folder in (world.folder_of("sft").model, run.model)
    )
    assert type(trained) is type(start)
    weights = trained.state_dict()
    assert {name: w.shape for name, w in start.state_dict().items()} == {name: w.shape for name, w in weights.items()}
    unchanged = [name for name, w in start.state_dict().items() if bool((w == weights[name]).all())]
    assert unchanged == []
    tokenizer = AutoTokenizer.from_pretrained(run.model)
    prompt = tokenizer("Where is barado?\n<think>", return_tensors="pt", return_token_type_ids=False)
    written = trained.generate(**prompt, max_new_tokens=8, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert 1 <= len(written) <= 8
