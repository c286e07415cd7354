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
        return problems + _accumulation_problems(settings, topology)
    problems = _batch_problems(settings, "rl", topology.trainer_gpus)
    problems += _rollout_problems(settings, topology)
    problems += _colocation_problems(settings, topology)
    problems += _accumulation_problems(settings, topology)
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


def _accumulation_problems(settings: Settings, topology: Topology) -> list[str]:
    """DeepSpeed refuses fp32 at stage 0, takes an optimizer whose states cannot leave the GPU at 1, ignores it at 2."""
    engine = settings.engine
    if topology.device == "cpu" or engine.gradient_accumulation != "fp32" or engine.zero_stage == 3:
        return []
    return [f'engine.gradient_accumulation = "fp32": needs engine.zero_stage = 3, and it is {engine.zero_stage}']


def _ahead_problems(settings: Settings, topology: Topology) -> list[str]:
    """vLLM samples while the model is trained, so it cannot sleep on the same GPUs."""
    steps = settings.engine.async_steps
    if not (steps and topology.colocate):
        return []
    return [
        f"engine.async_steps = {steps}: rollouts that run ahead of training need GPUs of their own; set "
        "engine.colocate = false, or engine.async_steps = 0"
    ]


def _batch_problems(settings: Settings, section: Literal["rl", "sft"], processes: int) -> list[str]:
    table = settings.rl if section == "rl" else settings.sft
    batch, micro_batch = table.batch_size, table.micro_batch_size
    rows = micro_batch * processes
    if batch % rows == 0:
        return []
    larger = -(-batch // rows) * rows
    fitting = f"{section}.batch_size = {larger}"
    if section == "rl" and (questions := _questions(settings.rl, larger)) != settings.rl.questions_per_step:
        fitting += f" and rl.questions_per_step = {questions}"
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
    if rl.rollouts % rows == 0:
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
