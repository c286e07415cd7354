"""A run as OpenRLHF 0.11.2's command line. No other module uses its flags."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from r1searcher.config.settings import Settings
from r1searcher.engine.openrlhf.algorithms import FlagValue, algorithm_flags
from r1searcher.engine.topology import Topology
from r1searcher.runs.folder import RunFolder

Flags = Mapping[str, FlagValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRun:
    """One stage for the engine. `run.questions` has exactly the rows of its steps; `model` is a folder."""

    settings: Settings
    run: RunFolder
    model: Path
    topology: Topology


def argv(flags: Flags) -> list[str]:
    """`{"a.b": 1, "c": True, "d": None, "e": (0, 1)}` -> `["--a.b", "1", "--c", "--e", "0", "1"]`.

    True has no value, False and None are omitted.
    """
    words: list[str] = []
    for name, value in flags.items():
        if value is True:
            words.append(f"--{name}")
        elif isinstance(value, tuple):
            words += [f"--{name}", *map(str, value)]
        elif value is not None and value is not False:
            words += [f"--{name}", str(value)]
    return words


def executor_file() -> Path:
    """The file that OpenRLHF loads the episode loop from; found without importing it."""
    spec = find_spec("r1searcher.engine.openrlhf.executor")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


def rl_flags(this: EngineRun, executor: Path | None = None) -> Flags:
    """Flags of `openrlhf.cli.train_ppo_ray` for one stage. Those of the algorithm take precedence.

    Paths become absolute: Ray's workers have another working directory. `executor` replaces ours, for benchmarks.
    """
    settings, run = this.settings, this.run
    rl, episode = settings.rl, settings.episode
    return {
        "actor.model_name_or_path": str(this.model.resolve()),
        **_placement(this.topology),
        # A no-op for states that are in host memory already.
        "ds.enable_sleep": this.topology.colocate
        and this.topology.device == "gpu"
        and not settings.engine.adam_offload,
        "ref.offload": this.topology.reference and settings.engine.reference_offload,
        "train.partial_rollout_enable": settings.engine.partial_rollouts,
        "vllm.gpu_memory_utilization": settings.engine.gpu_memory_utilization,
        **_strategy(settings, this.topology),
        "actor.gradient_checkpointing_enable": settings.engine.gradient_checkpointing,
        "algo.kl.init_coef": rl.kl_coef,
        "rollout.batch_size": rl.questions_per_step,
        "rollout.n_samples_per_prompt": rl.samples_per_question,
        **_batches(settings),
        "rollout.temperature": episode.temperature,
        "rollout.max_new_tokens": episode.max_new_tokens,
        "data.max_len": episode.max_context,
        "train.seed": settings.seed,
        "train.num_episodes": 1,
        "train.agent_func_path": str((executor or executor_file()).resolve()),
        "data.prompt_dataset": str(run.questions.resolve()),
        "data.input_key": "input",
        "data.label_key": "label",
        "actor.adam.lr": rl.learning_rate,
        "actor.lr_scheduler": {"constant": "constant", "cosine": "cosine_with_min_lr"}[rl.lr_schedule],
        "actor.lr_warmup_ratio": 0,
        "actor.min_lr_ratio": 0.1,
        "ckpt.save_steps": settings.checkpoint.every,
        "ckpt.max_num": settings.checkpoint.kept,
        "ckpt.best_metric_key": "none",
        "ckpt.load_enable": True,
        **_written_to(run),
        **algorithm_flags(rl),
    }


def _batches(settings: Settings) -> Flags:
    """Batches of a fixed number of trajectories, or dynamic ones, for which micro-batches are only part of checks."""
    rl = settings.rl
    return {
        "train.batch_size": rl.batch_size,
        "train.micro_batch_size": 1 if rl.dynamic_batch else rl.micro_batch_size,
        "rollout.micro_batch_size": 1 if rl.dynamic_batch else rl.forward_micro_batch_size or rl.micro_batch_size,
        "train.dynamic_batch_enable": rl.dynamic_batch,
        "train.max_tokens_per_gpu": settings.tokens_per_pass if rl.dynamic_batch else None,
        "ds.packing_samples": settings.engine.packing or rl.dynamic_batch,
    }


def sft_flags(this: EngineRun) -> Flags:
    """Flags of `openrlhf.cli.train_sft` for the SFT. `run.questions` holds its traces."""
    settings, sft = this.settings, this.settings.sft
    return {
        "model.model_name_or_path": str(this.model.resolve()),
        "model.gradient_checkpointing_enable": settings.engine.gradient_checkpointing,
        **_strategy(settings, this.topology),
        "data.dataset": str(this.run.questions.resolve()),
        "ds.packing_samples": settings.engine.packing,
        "train.batch_size": sft.batch_size,
        "train.micro_batch_size": sft.micro_batch_size,
        "train.max_epochs": 1,
        "train.seed": settings.seed,
        "adam.lr": sft.learning_rate,
        "lr_scheduler": "cosine_with_min_lr",
        "lr_warmup_ratio": 0.1,
        "min_lr_ratio": 0.2,
        **_written_to(this.run),
    }


def _placement(topology: Topology) -> Flags:
    cpu = topology.device == "cpu"
    several = topology.nodes if topology.nodes > 1 else None
    return {
        "actor.num_nodes": several,
        "actor.num_gpus_per_node": topology.gpus_per_node,
        "ref.num_nodes": several,
        "ref.num_gpus_per_node": topology.gpus_per_node,
        "critic.num_nodes": several if topology.critic else None,
        "critic.num_gpus_per_node": topology.gpus_per_node if topology.critic else None,
        "vllm.num_engines": topology.vllm_engines,
        "vllm.tensor_parallel_size": topology.tensor_parallel,
        "vllm.sync_backend": "gloo" if cpu else "nccl",
        "vllm.enforce_eager": cpu,
        "vllm.enable_prefix_caching": True,  # a turn's context is the turn before and its documents
        "vllm.enable_sleep": topology.colocate and not cpu,
        "train.colocate_all": topology.colocate,
        "train.async_enable": topology.async_steps > 0,
        "train.async_queue_size": topology.async_steps or None,
    }


def _strategy(settings: Settings, topology: Topology) -> Flags:
    lora = settings.lora
    adapters: Flags = {
        "ds.lora.rank": lora.rank,
        "ds.lora.alpha": lora.alpha,
        "ds.lora.dropout": lora.dropout,
        "ds.lora.target_modules": lora.target_modules or None,  # its default is all linear layers
    }
    return {
        "ds.zero_stage": settings.engine.zero_stage,
        "ds.attn_implementation": settings.engine.attention,
        "ds.adam_offload": settings.engine.adam_offload,
        # Its default is the weights' dtype: small gradients would be rounded away in a bf16 sum.
        "ds.grad_accum_dtype": _gradient_accumulation(settings) if topology.device == "gpu" else None,
        **(adapters if lora.rank else {}),
    }


def _gradient_accumulation(settings: Settings) -> str:
    engine = settings.engine
    return engine.gradient_accumulation or ("fp32" if engine.zero_stage == 3 else "bf16")


def _written_to(run: RunFolder) -> Flags:
    return {
        "ckpt.path": str(run.checkpoints.resolve()),
        "ckpt.output_dir": str(run.model.resolve()),
        "logger.tensorboard_dir": str(run.tensorboard.resolve()),
        "logger.wandb.run_name": run.path.name,  # also names the TensorBoard run
    }
