"""Flags, placement, algorithms, checkpoints and explanations of failures. Does not need training packages."""

import os
import re
import tomllib
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

from r1searcher.common.files import append_row, read_rows
from r1searcher.common.registry import Registry
from r1searcher.config.settings import RL, Lora, Retrieval, Settings
from r1searcher.engine import topology as topologies
from r1searcher.engine.environment import RUN, environment, forwarded, keys_of
from r1searcher.engine.failures import explain
from r1searcher.engine.openrlhf import algorithms, workers
from r1searcher.engine.openrlhf.algorithms import ALGORITHMS, Algorithm, require_algorithm
from r1searcher.engine.openrlhf.arithmetic import placement_problems
from r1searcher.engine.openrlhf.checkpoints import checkpoint_step, rewind
from r1searcher.engine.openrlhf.flags import EngineRun, Flags, argv, rl_flags
from r1searcher.engine.openrlhf.versions import ALLOW_UNTESTED, TESTED_VERSIONS, require_tested_versions
from r1searcher.engine.topology import Device, Topology, device_of, topology_of
from r1searcher.errors import InputError
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import trajectory_rows

REQUIREMENTS = Path(__file__).parents[2] / "requirements"


def settings(engine: dict[str, Any] | None = None, **rl: Any) -> Settings:
    small = {"questions_per_step": 4, "samples_per_question": 2, "batch_size": 8, "micro_batch_size": 2}
    return Settings.model_validate({"rl": {**small, **rl}, "engine": engine or {}})


def placed(engine: dict[str, Any], **rl: Any) -> Topology:
    return topology_of(settings(engine, **rl))


def flags(chosen: Settings, topology: Topology | None = None) -> Flags:
    return rl_flags(
        EngineRun(
            settings=chosen, run=RunFolder(Path("run")), model=Path("m"), topology=topology or topology_of(chosen)
        )
    )


def test_flags_have_no_value_are_left_out_or_have_one() -> None:
    assert argv({"a.b": 1, "c": True, "d": False, "e": None, "f": 2e-6}) == ["--a.b", "1", "--c", "--f", "2e-06"]
    assert argv({"a": (0.2, 0.28)}) == ["--a", "0.2", "0.28"]


def test_the_learning_rate_stays_or_falls() -> None:
    assert flags(settings())["actor.lr_scheduler"] == "constant"
    assert flags(settings(lr_schedule="cosine"))["actor.lr_scheduler"] == "cosine_with_min_lr"


def test_passes_without_training_have_a_micro_batch_of_their_own() -> None:
    assert flags(settings())["rollout.micro_batch_size"] == 2
    assert flags(settings(forward_micro_batch_size=8))["rollout.micro_batch_size"] == 8


GPUS = {"device": "gpu", "ray_address": "auto"}


def test_cpu_runs_sync_weights_over_gloo_and_gpu_runs_over_nccl() -> None:
    assert flags(settings(), placed({"device": "cpu"}))["vllm.sync_backend"] == "gloo"
    assert flags(settings(), placed(GPUS))["vllm.sync_backend"] == "nccl"


def test_savings_of_the_cpu_path_are_refused_for_gpus() -> None:
    with pytest.raises(InputError, match="precision"):
        placed({**GPUS, "precision": "mixed"})


@pytest.mark.parametrize(
    ("engine", "kl_coef", "gpus"),
    [
        ({"gpus": 2, "vllm_engines": 2}, 0.0, 4),  # trained model, two engines
        ({"gpus": 2, "vllm_engines": 2}, 0.1, 6),  # and the reference
        ({"gpus": 2, "vllm_engines": 1, "tensor_parallel": 4}, 0.0, 6),
        ({"gpus": 8, "vllm_engines": 4, "tensor_parallel": 2, "colocate": True}, 0.1, 8),
    ],
)
def test_how_many_gpus_a_placement_takes(engine: dict[str, Any], kl_coef: float, gpus: int) -> None:
    """As OpenRLHF counts them: train_ppo_ray.py, lines 42 to 130 of 0.11.2."""
    assert placed({**GPUS, **engine}, kl_coef=kl_coef).gpus == gpus


def test_a_placement_that_logical_gpus_cannot_hold_is_refused() -> None:
    assert placed({"device": "cpu", "gpus": 8, "vllm_engines": 8}).gpus == topologies.LOGICAL_GPUS
    with pytest.raises(InputError, match="make 17 processes"):
        placed({"device": "cpu", "gpus": 9, "vllm_engines": 8})


def test_flags_follow_the_placement() -> None:
    wanted = Topology(
        device="gpu",
        nodes=2,
        gpus_per_node=8,
        reference=True,
        critic=True,
        vllm_engines=4,
        tensor_parallel=2,
        colocate=False,
        async_steps=0,
    )
    assert wanted.gpus == 16 * 3 + 8
    found = flags(settings({"gpu_memory_utilization": 0.5}), wanted)
    for model in ("actor", "ref", "critic"):
        assert (found[f"{model}.num_nodes"], found[f"{model}.num_gpus_per_node"]) == (2, 8)
    assert (found["vllm.num_engines"], found["vllm.tensor_parallel_size"]) == (4, 2)
    assert found["vllm.gpu_memory_utilization"] == 0.5
    assert "--critic.num_gpus_per_node" not in argv(flags(settings()))


def test_adapters_are_off_or_have_their_flags() -> None:
    assert not [word for word in argv(flags(settings())) if word.startswith("--ds.lora")]
    chosen = settings().model_copy(update={"lora": Lora(rank=8, alpha=32, target_modules=("q_proj", "v_proj"))})
    words = argv(flags(chosen))
    assert "--ds.lora.rank 8 --ds.lora.alpha 32 --ds.lora.dropout 0.0" in " ".join(words)
    assert "--ds.lora.target_modules q_proj v_proj" in " ".join(words)
    everywhere = chosen.model_copy(update={"lora": Lora(rank=8)})
    assert "--ds.lora.target_modules" not in argv(flags(everywhere))  # OpenRLHF's default is all linear layers


ESTIMATORS = {
    "reinforce++": "reinforce",
    "reinforce++-baseline": "reinforce_baseline",
    "rloo": "rloo",
    "grpo": "group_norm",
    "dr-grpo": "dr_grpo",
    "flash-reinforce": "flash_reinforce",
    "gspo": "group_norm",
    "ppo": "gae",
}
"""OpenRLHF's names: the table "RL Algorithms" of its README; gspo is a loss there, to be combined with an estimator."""

ONE_SAMPLE = ("reinforce++", "flash-reinforce", "ppo")
"""Algorithms whose baseline is not the question's samples."""


def test_the_algorithms_are_openrlhfs_under_the_names_that_people_know() -> None:
    assert {
        name: flags(settings(algorithm=name))["algo.advantage.estimator"] for name in ALGORITHMS.builtin
    } == ESTIMATORS
    assert flags(settings(algorithm="gspo"))["actor.policy_loss_type"] == "gspo"
    assert flags(settings(algorithm="grpo"))["algo.kl.estimator"] == "k3"


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_algorithm_that_compares_samples_needs_two(name: str) -> None:
    single = RL(algorithm=name, samples_per_question=1, batch_size=64)
    if name in ONE_SAMPLE:
        require_algorithm(single)
    else:
        with pytest.raises(InputError, match="needs at least 2"):
            require_algorithm(single)


LOSS_FLAGS = {
    "actor.eps_clip_low_high": ({"clip_range": [0.1, 0.28]}, (0.1, 0.28)),
    "actor.dual_clip": ({"dual_clip": 3.0}, 3.0),
    "actor.loss_agg_mode": ({"loss_aggregation": "token"}, "token-mean"),
    "actor.entropy_coef": ({"entropy_coef": 0.0}, 0.0),
    "algo.kl.estimator": ({"kl_estimator": "k2"}, "k2"),
    "algo.kl.use_loss": ({"kl_in_loss": False}, False),
}


@pytest.mark.parametrize("flag", LOSS_FLAGS)
def test_settings_of_the_loss_replace_what_the_algorithm_says(flag: str) -> None:
    chosen, value = LOSS_FLAGS[flag]
    assert flags(settings(algorithm="grpo", **chosen))[flag] == value
    assert flag not in flags(settings(algorithm="reinforce++")), "OpenRLHF's default holds"


def test_a_loss_that_would_not_do_what_the_settings_say_is_refused() -> None:
    require_algorithm(RL(algorithm="grpo", kl_in_loss=True))
    with pytest.raises(InputError, match="gradient of k1 is 0 on average"):
        require_algorithm(RL(algorithm="rloo", kl_in_loss=True))
    with pytest.raises(InputError, match='weights trajectories; set "trajectory"'):
        require_algorithm(RL(algorithm="gspo", loss_aggregation="token"))


def test_a_critic_has_gpus_and_settings_of_its_own() -> None:
    chosen = settings(algorithm="ppo", critic_learning_rate=1e-5)
    found = flags(chosen, placed({**GPUS, "gpus": 4}, algorithm="ppo"))
    assert (found["critic.num_gpus_per_node"], found["critic.adam.lr"], found["algo.advantage.lambd"]) == (4, 1e-5, 1.0)
    assert placed({**GPUS, "gpus": 4}, algorithm="ppo").gpus == 4 + 4 + 1  # with one vLLM engine
    assert not [name for name in argv(flags(settings(algorithm="rloo"))) if "critic" in name]


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("algo.advantage.is_correction_level", "off", "vLLM then reports no log-probabilities"),
        ("train.async_enable", True, "set engine.async_steps instead"),
    ],
)
def test_an_algorithm_whose_flags_switch_a_guard_off_is_refused(
    monkeypatch: pytest.MonkeyPatch, flag: str, value: str | bool, said: str
) -> None:
    mine = Algorithm(estimator="reinforce", description="", flags={flag: value})
    monkeypatch.setattr(algorithms, "ALGORITHMS", Registry("algorithm", "none", {"mine": mine}))
    with pytest.raises(InputError, match=said):
        require_algorithm(RL(algorithm="mine"))


def test_rollouts_run_ahead_as_far_as_the_settings_say() -> None:
    found = flags(settings({"async_steps": 3}))
    assert (found["train.async_enable"], found["train.async_queue_size"]) == (True, 3)
    assert not found["train.partial_rollout_enable"]
    partial = flags(settings({"async_steps": 1, "partial_rollouts": True}))
    assert partial["train.partial_rollout_enable"]
    assert not [word for word in argv(flags(settings())) if word.startswith("--train.async")]


def test_an_unknown_algorithm_is_one_sentence_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"rl\.algorithm: there is no algorithm 'rlo' \(did you mean 'rloo'\?\)"):
        require_algorithm(RL(algorithm="rlo"))


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_tested_versions_are_the_pinned_ones(device: Device) -> None:
    """Those that scripts/install-training installs; a later file replaces pins of the ones before."""
    files = ("torch", "training", "deepspeed", f"engine-{device}")
    text = "\n".join((REQUIREMENTS / f"{name}.txt").read_text() for name in files)
    pinned = dict(re.findall(r"^([\w.-]+)={2,3}(\S+)$", text, re.MULTILINE))
    assert TESTED_VERSIONS[device] == {name: pinned[name] for name in TESTED_VERSIONS[device]}


def test_another_version_is_refused_unless_the_user_takes_the_risk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ALLOW_UNTESTED, raising=False)
    with pytest.raises(InputError, match=r"tested with pytest 1\.0 \(here: [2-9]\."):
        require_tested_versions("cpu", {"pytest": "1.0"})
    with pytest.raises(
        InputError, match=r"not run together on a GPU.*install-training gpu.*R1S_ALLOW_UNTESTED_VERSIONS=1"
    ):
        require_tested_versions("gpu", {"no-such-package": "1"})
    monkeypatch.setenv(ALLOW_UNTESTED, "1")
    require_tested_versions("gpu", {"no-such-package": "1"})


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_a_clusters_workers_get_what_is_on_the_list_and_nothing_else(device: Device) -> None:
    """What `launch.sh` exports but for Ray's own, and the user's network; no keys and nothing else of this machine."""
    chosen, run = settings({"device": device, "ray_address": "10.0.0.1:6379"}), RunFolder(Path("/runs/a"))
    exported = environment(chosen, run, topology_of(chosen))
    users = {"NCCL_SOCKET_IFNAME": "ib0", "GLOO_SOCKET_IFNAME": "ib0", "UCX_TLS": "rc", "OMP_NUM_THREADS": "3"}
    others = {"HOME": "/home/x", "SECRET_TOKEN": "s", "RAY_ADDRESS": "10.0.0.2:6379", "CUDA_VISIBLE_DEVICES": "0"}
    found = forwarded(chosen, run, topology_of(chosen), {**exported, **users, **others, ALLOW_UNTESTED: "1"})
    assert set(found) >= {RUN, "HF_HUB_OFFLINE", "HF_DATASETS_CACHE", "TOKENIZERS_PARALLELISM", "VLLM_NO_USAGE_STATS"}
    assert found.items() >= {**users, RUN: "/runs/a", "HF_HUB_OFFLINE": "1", ALLOW_UNTESTED: "1"}.items()
    assert not set(found) & set(others)
    assert not any("RAY" in name for name in found)
    assert ("VLLM_PLUGINS" in found) == (device == "cpu")
    assert "VLLM_HOST_IP" not in found, "the loopback interface is for runs on one machine"


def test_processes_on_gpus_share_the_cores_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray gives a process that asks for part of a core a single thread."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(24)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    chosen = settings({"device": "gpu", "gpus": 8, "colocate": True})
    assert environment(chosen, RunFolder(Path("run")), topology_of(chosen, "gpu"))["OMP_NUM_THREADS"] == "3"
    cluster = settings({**GPUS, "nodes": 2, "gpus": 8, "colocate": True, "adam_offload": True})
    assert environment(cluster, RunFolder(Path("run")), topology_of(cluster))["OMP_NUM_THREADS"] == "3"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert environment(chosen, RunFolder(Path("run")), topology_of(chosen, "gpu"))["OMP_NUM_THREADS"] == "5"


@pytest.mark.parametrize(("stage", "dtype"), [(0, "bf16"), (1, "bf16"), (2, "bf16"), (3, "fp32")])
def test_gradients_are_added_up_in_fp32_where_deepspeed_can(stage: int, dtype: str) -> None:
    def chosen(**engine: Any) -> Settings:
        return settings({**GPUS, "zero_stage": stage, **engine})

    assert flags(chosen())["ds.grad_accum_dtype"] == dtype
    assert flags(chosen(gradient_accumulation="bf16"))["ds.grad_accum_dtype"] == "bf16"
    refused = placement_problems(chosen(gradient_accumulation="fp32"), topology_of(chosen()), "stage1")
    assert any("engine.gradient_accumulation" in problem for problem in refused) == (stage < 3)
    assert "--ds.grad_accum_dtype" not in argv(flags(settings())), "without GPUs it is as precise as the weights"


def test_a_clusters_workers_get_the_keys_of_their_retriever() -> None:
    """docs/retrieval.md names the variables of Elasticsearch."""
    here = {"R1S_ELASTICSEARCH_API_KEY": "k", "HOME": "/home/x"}
    asked = settings().model_copy(update={"retrieval": Retrieval(url="es://search:9200/wiki")})
    run, here_only = RunFolder(Path("run")), topology_of(asked)
    assert keys_of(asked, here) == {"R1S_ELASTICSEARCH_API_KEY": "k"}
    assert forwarded(asked, run, here_only, here) == {}, "Ray puts these on command lines"
    index = settings().model_copy(update={"retrieval": Retrieval(url="index")})
    assert keys_of(index, here) == {}


def test_the_entry_point_for_vllm_is_the_one_that_the_engine_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """An editable installation keeps the metadata of its first day."""
    project = tomllib.loads((REQUIREMENTS.parent / "pyproject.toml").read_text())["project"]
    declared = [
        EntryPoint(name, value, group)
        for group, found in project["entry-points"].items()
        for name, value in found.items()
    ]
    monkeypatch.setattr(workers, "entry_points", EntryPoints(declared).select)
    workers.require_vllm_entry_point()
    monkeypatch.setattr(workers, "entry_points", EntryPoints([]).select)
    with pytest.raises(InputError, match=r"out of date.*scripts/install-training cpu"):
        workers.require_vllm_entry_point()


def make_checkpoint(run: RunFolder, step: int, model: str = "_actor") -> None:
    for saved in range(2, step + 1, 2):
        (run.checkpoints / model / f"global_step{saved}").mkdir(parents=True)
    (run.checkpoints / model / "latest").write_text(f"global_step{step}")


EPISODE = {"question": "q", "gold_answers": [], "stop": "answered", "segments": [], "searches": []}


def test_rewinding_drops_what_was_recorded_after_the_checkpoint(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    make_checkpoint(run, 2)
    for step in (1, 2, 3, 4):
        append_row(run.metrics, {"step": step})
        for writer in ("a", "b"):
            append_row(run.trajectories(step) / f"{writer}.jsonl", {**EPISODE, "step": step, "writer": writer})
    for file in (run.stop_note, run.ending, run.stop_request):
        file.touch()
    assert rewind(run) == 2
    assert [row["step"] for row in read_rows(run.metrics)] == [1, 2]
    assert run.recorded_steps() == [(1, run.trajectories(1)), (2, run.trajectories(2))]
    assert [row["writer"] for row in trajectory_rows(run.trajectories(2))] == ["a", "b"]
    assert list(trajectory_rows(run.trajectories(3))) == []
    assert not any(file.exists() for file in (run.stop_note, run.ending, run.stop_request))


def test_a_first_checkpoint_cut_short_is_taken_for_none(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    (run.checkpoints / "_actor" / "global_step2").mkdir(parents=True)
    append_row(run.metrics, {"step": 1})
    assert rewind(run) == 0
    assert not (run.checkpoints / "_actor").exists()
    assert list(read_rows(run.metrics)) == []


@pytest.mark.parametrize(("actor", "critic"), [(4, 2), (2, 4), (4, 4)])
def test_both_models_resume_from_the_same_step(tmp_path: Path, actor: int, critic: int) -> None:
    """A kill may come when one of them is saved and the other is not."""
    run = RunFolder(tmp_path)
    make_checkpoint(run, actor)
    make_checkpoint(run, critic, "_critic")
    step = min(actor, critic)
    assert checkpoint_step(run) == step
    assert rewind(run) == step
    for model in ("_actor", "_critic"):
        assert (run.checkpoints / model / "latest").read_text() == f"global_step{step}"
        assert (run.checkpoints / model / "global_step2").is_dir()
        assert (run.checkpoints / model / "global_step4").exists() == (step == 4)


def test_without_a_saved_critic_the_run_starts_over(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    make_checkpoint(run, 2)
    (run.checkpoints / "_critic" / "global_step2").mkdir(parents=True)  # cut short
    assert rewind(run) == 0
    assert not (run.checkpoints / "_actor").exists()
    assert not (run.checkpoints / "_critic").exists()


def test_a_critic_of_the_settings_that_was_never_saved_counts_too(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    make_checkpoint(run, 2)
    assert checkpoint_step(run) == 2
    run.config.write_text('rl.algorithm = "ppo"\n')
    assert checkpoint_step(run) == 0


LOGS = {
    "(RolloutRayActor pid=7) r1searcher.errors.RetrieverError: es://x:9200/wiki did not answer for 600 s\n"
    "ray.exceptions.RayTaskError: boom": "es://x:9200/wiki did not answer for 600 s",
    "\x1b[36m(PolicyModelActor pid=7)\x1b[0m torch.OutOfMemoryError: CUDA out of memory.": "GPU ran out of memory",
    "Exception: The current node timed out during startup.": "The current node timed out",
    "OSError: [Errno 28] No space left on device": "the disk is full",
    "[rank0]: Traceback (most recent call last):\n[rank0]: ValueError: a row of no tokens\nE1126 exitcode: 1": (
        "ValueError: a row of no tokens"
    ),
    "RuntimeError: [gloo/transport/tcp/pair.cc:553] Connection closed by peer [10.0.0.2]:32491. This is typical": (
        "a process of the engine was lost, perhaps with its node"
    ),
    "ray.exceptions.ActorDiedError: The actor died because its node has died. Node Id: 8b": "perhaps with its node",
    "RuntimeError: Connection closed by peer [10.0.0.2]:1\nValueError: a row of no tokens": "ValueError: a row of no",
    "(PPOTrainer pid=9) Traceback\n(PPOTrainer pid=9) ValueError: bad batch\nray.exceptions.RayTaskError: x": (
        "ValueError: bad batch"
    ),
}


@pytest.mark.parametrize("log", LOGS)
def test_a_log_is_explained_by_its_first_cause(log: str) -> None:
    assert LOGS[log] in explain(log, 1)


def test_the_device_is_the_cpu_where_nothing_else_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert device_of(Settings()) == "cpu"
    with pytest.raises(InputError, match="no NVIDIA GPU was found"):
        device_of(Settings.model_validate({"engine": {"device": "gpu"}}))
