"""Needs no training packages."""

import json
from collections import Counter

import pytest

from r1searcher.common.files import append_row, read_rows
from r1searcher.config.settings import Data, Settings
from r1searcher.engine import launch
from r1searcher.engine.flags import argv, rl_flags
from r1searcher.errors import InputError
from r1searcher.models.folder import local_model
from r1searcher.runs.folder import RunFolder

ROWS = [(f"prompt {i}", f"label {i}") for i in range(10)]


def settings(**rl) -> Settings:
    return Settings.model_validate(
        {"rl": {"questions_per_step": 4, "samples_per_question": 2, "batch_size": 8, "micro_batch_size": 2, **rl}}
    )


def test_flags_stand_alone_are_left_out_or_carry_a_value():
    assert argv({"a.b": 1, "c": True, "d": False, "e": None, "f": 2e-6}) == ["--a.b", "1", "--c", "--f", "2e-06"]


def test_prompts_fill_whole_steps_and_every_question_comes_once_a_pass(tmp_path):
    run = RunFolder(tmp_path)
    assert launch.write_prompts(run, ROWS, settings()) == 2
    assert len({row["input"] for row in read_rows(run.questions)}) == 8
    assert launch.write_prompts(run, ROWS, settings(steps=5)) == 5
    assert set(Counter(row["input"] for row in read_rows(run.questions)).values()) == {2}


def test_prompt_order_is_the_seeds(tmp_path):
    def order(seed: int) -> list[str]:
        launch.write_prompts(RunFolder(tmp_path), ROWS, settings().model_copy(update={"seed": seed}))
        return [row["input"] for row in read_rows(RunFolder(tmp_path).questions)]

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_prompt_order_is_the_files_where_nothing_is_shuffled(tmp_path):
    kept = settings(steps=5)
    launch.write_prompts(RunFolder(tmp_path), ROWS, kept.model_copy(update={"data": Data(shuffle=False)}))
    order = [row["input"] for row in read_rows(RunFolder(tmp_path).questions)]
    assert order == [ROWS[i % len(ROWS)][0] for i in range(20)]


def test_fewer_questions_than_a_step_takes_are_refused(tmp_path):
    with pytest.raises(InputError, match="questions_per_step = 4"):
        launch.write_prompts(RunFolder(tmp_path), ROWS[:3], settings())


def test_savings_of_the_cpu_path_are_refused_for_gpus():
    wanted = Settings.model_validate({"engine": {"device": "gpu", "ray_address": "auto", "precision": "mixed"}})
    with pytest.raises(InputError, match="precision"):
        launch.device(wanted)


def test_the_learning_rate_stays_or_falls(tmp_path):
    def scheduler(**rl) -> object:
        return rl_flags(settings(**rl), RunFolder(tmp_path), tmp_path, "cpu")["actor.lr_scheduler"]

    assert scheduler() == "constant"
    assert scheduler(lr_schedule="cosine") == "cosine_with_min_lr"


def test_passes_without_training_have_a_micro_batch_of_their_own(tmp_path):
    run = RunFolder(tmp_path)

    def size(**rl) -> object:
        return rl_flags(settings(**rl), run, tmp_path, "cpu")["rollout.micro_batch_size"]

    assert size() == 2
    assert size(forward_micro_batch_size=8) == 8


def test_cpu_runs_sync_weights_over_gloo_and_gpu_runs_over_nccl(tmp_path):
    run = RunFolder(tmp_path)
    assert rl_flags(settings(), run, tmp_path, "cpu")["vllm.sync_backend"] == "gloo"
    assert rl_flags(settings(), run, tmp_path, "gpu")["vllm.sync_backend"] == "nccl"


def make_checkpoint(run: RunFolder, step: int) -> None:
    (run.checkpoints / "_actor").mkdir(parents=True)
    (run.checkpoints / "_actor" / "latest").write_text(f"global_step{step}")


def test_rewinding_drops_what_was_recorded_behind_the_checkpoint(tmp_path):
    run = RunFolder(tmp_path)
    make_checkpoint(run, 2)
    for step in (1, 2, 3):
        append_row(run.metrics, {"step": step})
        append_row(run.trajectories(step), {"step": step})
    append_row(run.trajectories(4), {"step": 4})
    run.stop_note.write_text("the search engine was gone")
    assert launch.rewind(run) == 2
    assert [row["step"] for row in read_rows(run.metrics)] == [1, 2]
    assert sorted(file.name for file in run.trajectories(1).parent.iterdir()) == [
        "step-000001.jsonl",
        "step-000002.jsonl",
    ]
    assert not run.stop_note.exists()


def test_a_first_checkpoint_cut_short_is_taken_for_none(tmp_path):
    run = RunFolder(tmp_path)
    (run.checkpoints / "_actor" / "global_step2").mkdir(parents=True)
    append_row(run.metrics, {"step": 1})
    assert launch.rewind(run) == 0
    assert not (run.checkpoints / "_actor").exists()
    assert list(read_rows(run.metrics)) == []


LOGS = {
    "(RolloutRayActor pid=7) r1searcher.errors.RetrieverError: es://x:9200/wiki did not answer for 600 s\n"
    "ray.exceptions.RayTaskError: boom": "es://x:9200/wiki did not answer for 600 s",
    "\x1b[36m(PolicyModelActor pid=7)\x1b[0m torch.OutOfMemoryError: CUDA out of memory.": "GPU ran out of memory",
    "Exception: The current node timed out during startup.": "The current node timed out",
    "OSError: [Errno 28] No space left on device": "the disk is full",
    "(PPOTrainer pid=9) Traceback\n(PPOTrainer pid=9) ValueError: bad batch\nray.exceptions.RayTaskError: x": (
        "ValueError: bad batch"
    ),
}


@pytest.mark.parametrize("log", LOGS)
def test_a_log_is_explained_by_its_first_cause(log):
    assert LOGS[log] in launch.explain(log, 1)


def make_model(folder, config=None, weights="model.safetensors"):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config or {"model_type": "qwen2"}))
    (folder / weights).touch()
    return str(folder)


def test_a_model_that_brings_code_is_refused_unless_allowed(tmp_path):
    model = make_model(tmp_path / "m", {"auto_map": {"AutoModel": "modeling_x.X"}})
    with pytest.raises(InputError, match="trust_remote_code"):
        local_model(model)
    assert local_model(model, trust_remote_code=True) == tmp_path / "m"


def test_pickled_weights_are_refused(tmp_path):
    with pytest.raises(InputError, match="pickle"):
        local_model(make_model(tmp_path / "m", weights="pytorch_model.bin"))


def test_a_folder_without_a_model_is_one_clear_sentence(tmp_path):
    with pytest.raises(InputError, match=r"no model folder: it has no config\.json"):
        local_model(str(tmp_path))
