"""What OpenRLHF 0.11.2 and DeepSpeed refuse after minutes, or wait for without end: batches that do not divide.

Every process of the trained model takes `rollouts / processes` trajectories of a step. OpenRLHF rounds that up
(`RayActorGroup.async_run_method_batch`), so that with a remainder the last processes have fewer micro-batches than the
others wait for. DeepSpeed wants `batch = micro-batch x accumulation x processes`.
"""

from math import gcd, lcm
from pathlib import Path
from typing import Literal

from r1searcher.config.settings import RL, Settings, Stage
from r1searcher.engine.topology import Topology

_SPLIT_AT = {",": "a comma", "@": 'an "@"'}
"""OpenRLHF splits the name of a dataset at these (`openrlhf.datasets.utils.blending_datasets`)."""


def placement_problems(settings: Settings, topology: Topology, stage: Stage) -> list[str]:
    """One sentence per setting that the engine would refuse or fail at, with the value to set instead."""
    if stage == "sft":
        problems = _batch_problems(settings, "sft", topology.sft_processes)
        if topology.device == "gpu" and topology.nodes > 1:
            problems.append(f"engine.nodes = {topology.nodes}: SFT runs on one node; set [sft.engine] nodes = 1")
        return problems + _state_problems(settings, topology) + _packing_problems(settings, topology, packs=False)
    dynamic = settings.rl.dynamic_batch
    problems = _dynamic_problems(settings) if dynamic or settings.rl.max_tokens_per_gpu else []
    problems += _batch_problems(settings, "rl", topology.trainer_gpus)
    problems += _rollout_problems(settings, topology)
    problems += _colocation_problems(settings, topology)
    problems += _state_problems(settings, topology) + _packing_problems(settings, topology, packs=dynamic)
    if settings.engine.reference_offload:
        problems += _reference_problems(settings, topology)
    problems += _ahead_problems(settings, topology)
    if topology.critic and settings.lora.rank:
        problems.append(
            f"lora.rank = {settings.lora.rank}: with rl.algorithm = {settings.rl.algorithm!r} a critic would get "
            "adapters too, which was not tested; set lora.rank = 0"
        )
    folder = str(Path(settings.output, settings.name).resolve())
    for character, said in _SPLIT_AT.items():
        if character in folder:
            problems.append(f"output: {folder} contains {said}, at which OpenRLHF splits names; choose another folder")
    return problems


def _state_problems(settings: Settings, topology: Topology) -> list[str]:
    """DeepSpeed refuses fp32 gradients at stage 0, takes an optimizer whose states cannot leave the GPU at 1, ignores
    them at 2; its Adam for the host refuses the parameters on the GPU that stage 0 gives it."""
    engine, problems = settings.engine, []
    if topology.device == "gpu" and engine.gradient_accumulation == "fp32" and engine.zero_stage < 3:
        problems.append(
            f'engine.gradient_accumulation = "fp32": needs engine.zero_stage = 3, and it is {engine.zero_stage}'
        )
    if engine.adam_offload and topology.device == "cpu":
        problems.append(
            "engine.adam_offload = true: without GPUs all is in host memory; set engine.adam_offload = false"
        )
    elif engine.adam_offload and engine.zero_stage == 0:
        problems.append("engine.adam_offload = true: needs ZeRO; set engine.zero_stage = 2")
    return problems


def _reference_problems(settings: Settings, topology: Topology) -> list[str]:
    """DeepSpeed moves the parameters of a model that is not trained at stage 3 only, and otherwise ignores the flag."""
    said = "engine.reference_offload = true"
    if topology.device == "cpu":
        return [f"{said}: without GPUs all is in host memory; set engine.reference_offload = false"]
    if not topology.reference:
        return [f"{said}: with rl.kl_coef = 0 there is no reference model; set engine.reference_offload = false"]
    if settings.engine.zero_stage < 3:
        return [f"{said}: has no effect below ZeRO stage 3; set engine.zero_stage = 3"]
    return []


def _packing_problems(settings: Settings, topology: Topology, *, packs: bool) -> list[str]:
    """OpenRLHF replaces another attention than flash attention by flash_attention_2 where samples are packed."""
    engine = settings.engine
    if topology.device == "cpu" or not (engine.packing or packs) or engine.attention.startswith("flash_attention"):
        return []
    cause = "engine.packing" if engine.packing else "rl.dynamic_batch"
    return [
        f'{cause} = true: engine.attention = "{engine.attention}" does not keep packed trajectories apart; set '
        'engine.attention = "flash_attention_4"'
    ]


def _dynamic_problems(settings: Settings) -> list[str]:
    """OpenRLHF ignores the settings of the other kind of batch, and the limit for a trajectory that is longer."""
    rl, context = settings.rl, settings.episode.max_context
    if not rl.dynamic_batch:
        return [f"rl.max_tokens_per_gpu = {rl.max_tokens_per_gpu}: has no effect; set rl.dynamic_batch = true"]
    problems = []
    if settings.tokens_per_pass < context:
        problems.append(
            f"rl.max_tokens_per_gpu = {rl.max_tokens_per_gpu}: a trajectory may have episode.max_context = {context} "
            f"tokens; set rl.max_tokens_per_gpu = {context}"
        )
    if rl.forward_micro_batch_size:
        problems.append(
            f"rl.forward_micro_batch_size = {rl.forward_micro_batch_size}: has no effect; set rl.dynamic_batch = false"
        )
    return problems


def _ahead_problems(settings: Settings, topology: Topology) -> list[str]:
    """vLLM samples while the model is trained, so it cannot sleep on the same GPUs."""
    if topology.async_steps and topology.colocate:
        return [
            f"engine.async_steps = {topology.async_steps}: rollouts that run ahead of training need GPUs of their own; "
            "set engine.colocate = false, or engine.async_steps = 0"
        ]
    if settings.engine.partial_rollouts and not topology.async_steps:
        return ["engine.partial_rollouts = true: needs rollouts that run ahead of training; set engine.async_steps = 1"]
    return []


def _batch_problems(settings: Settings, section: Literal["rl", "sft"], processes: int) -> list[str]:
    table = settings.rl if section == "rl" else settings.sft
    dynamic = section == "rl" and settings.rl.dynamic_batch  # each process takes its share of the update
    batch, micro_batch = table.batch_size, 1 if dynamic else table.micro_batch_size
    rows = micro_batch * processes
    if batch % rows == 0:
        return []
    larger = -(-batch // rows) * rows
    fitting = f"{section}.batch_size = {larger}"
    if section == "rl" and (questions := _questions(settings.rl, larger)) != settings.rl.questions_per_step:
        fitting += f" and rl.questions_per_step = {questions}"
    if dynamic:
        return [f"rl.batch_size = {batch}: must be a multiple of the {processes} GPUs; set {fitting}"]
    if batch % processes == 0:
        smaller = max(size for size in range(1, micro_batch + 1) if batch % (size * processes) == 0)
        fitting = f"{section}.micro_batch_size = {smaller}, or {fitting}"
    return [
        f"{section}.batch_size = {batch}: must be a multiple of {section}.micro_batch_size x GPUs = {micro_batch} x "
        f"{processes} = {rows}; set {fitting}"
    ]


def _questions(rl: RL, *divisors: int) -> int:
    """The fewest questions per step, not fewer than now, whose trajectories every divisor divides."""
    unit = lcm(*divisors) // gcd(lcm(*divisors), rl.samples_per_question)
    return -(-rl.questions_per_step // unit) * unit


def _rollout_problems(settings: Settings, topology: Topology) -> list[str]:
    rl = settings.rl
    name = "rl.forward_micro_batch_size" if rl.forward_micro_batch_size else "rl.micro_batch_size"
    size = rl.forward_micro_batch_size or rl.micro_batch_size
    rows = size * topology.trainer_gpus
    if rl.dynamic_batch or rl.rollouts % rows == 0:  # dynamic: a multiple of batch_size, of which all GPUs get a share
        return []
    return [
        f"rl.questions_per_step x rl.samples_per_question = {rl.rollouts}: must be a multiple of {name} x GPUs = "
        f"{size} x {topology.trainer_gpus} = {rows}; set rl.questions_per_step = {_questions(rl, rows, rl.batch_size)}"
    ]


def _colocation_problems(settings: Settings, topology: Topology) -> list[str]:
    if not topology.colocate:
        return []
    problems = []
    if topology.trainer_gpus != topology.vllm_gpus:
        engines, rest = divmod(topology.trainer_gpus, topology.tensor_parallel)
        fitting = f"engine.vllm_engines = {engines}" if not rest else "engine.tensor_parallel = 1"
        problems.append(
            f"engine.colocate: the trained model has {topology.trainer_gpus} GPUs and vLLM {topology.vllm_gpus} "
            f"(engine.vllm_engines x engine.tensor_parallel); they must be the same: set {fitting}"
        )
    if topology.device == "gpu" and settings.engine.zero_stage == 0:
        problems.append(
            "engine.zero_stage = 0: engine.colocate needs states that can leave the GPU; set engine.zero_stage = 2"
        )
    return problems
