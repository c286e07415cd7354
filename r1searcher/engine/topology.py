"""The placement of a run: the device, and the GPUs of the trained model, its reference and vLLM.

Computed once per run from the settings and the hardware of this machine. Flags, launch script and the checks before a
run read it; nothing else computes a placement.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from r1searcher.config.settings import Engine, Settings
from r1searcher.engine.openrlhf.algorithms import has_critic
from r1searcher.errors import InputError

Device = Literal["cpu", "gpu"]

LOGICAL_GPUS = 16
"""On CPU: how many GPUs Ray is told that there are. OpenRLHF asks for one per process; each is some cores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """A placement. On `device` "cpu" a GPU is a logical one: a share of the cores."""

    device: Device
    nodes: int
    gpus_per_node: int
    """Of the trained model; reference model and critic get as many."""

    reference: bool
    """Whether a reference model is loaded."""

    critic: bool
    """Whether a critic is trained."""

    vllm_engines: int
    tensor_parallel: int
    """GPUs per vLLM engine."""

    colocate: bool
    """Trained model, reference, critic and vLLM share the same GPUs."""

    gpu_memory_utilization: float
    """Share of a GPU's memory for vLLM."""

    @property
    def trainer_gpus(self) -> int:
        """GPUs of the trained model on all nodes."""
        return self.nodes * self.gpus_per_node

    @property
    def gpus(self) -> int:
        """GPUs of everything together; with fewer, Ray waits forever."""
        vllm = self.vllm_engines * self.tensor_parallel
        if self.colocate:
            return max(self.trainer_gpus, vllm)
        return self.trainer_gpus * (1 + self.reference + self.critic) + vllm


def topology_of(settings: Settings, device: Device | None = None) -> Topology:
    """The placement that the settings ask for; on `device`, or on the one that this machine has.

    Raises `InputError` if they ask for something that the machine does not have.
    """
    engine = settings.engine
    topology = Topology(
        device=device or device_of(settings),
        nodes=engine.nodes,
        gpus_per_node=engine.gpus,
        reference=settings.rl.kl_coef > 0,
        critic=has_critic(settings.rl),
        vllm_engines=engine.vllm_engines or _engines(engine),
        tensor_parallel=engine.tensor_parallel,
        colocate=engine.colocate,
        gpu_memory_utilization=engine.gpu_memory_utilization,
    )
    if topology.device == "cpu" and topology.gpus > LOGICAL_GPUS:
        raise InputError(
            f"engine.gpus = {engine.gpus}, engine.vllm_engines = {topology.vllm_engines} and engine.tensor_parallel = "
            f"{engine.tensor_parallel} make {topology.gpus} processes; without GPUs there can be {LOGICAL_GPUS}"
        )
    return topology


def _engines(engine: Engine) -> int:
    """How many vLLM engines there are where the settings leave it open."""
    return max(1, engine.nodes * engine.gpus // engine.tensor_parallel) if engine.colocate else 1


def device_of(settings: Settings) -> Device:
    """Where this run trains and samples. Raises `InputError` if the machine lacks what the settings ask for."""
    engine = settings.engine
    present = has_gpu()
    if engine.device == "gpu" and not present and not engine.ray_address:
        raise InputError('engine.device = "gpu": no NVIDIA GPU was found on this machine; use "auto" or "cpu"')
    if engine.device == "gpu" or (engine.device == "auto" and (present or engine.ray_address)):
        if engine.precision != "bf16" or engine.freeze_lower_layers:
            raise InputError(
                f"engine.precision = {engine.precision!r} and engine.freeze_lower_layers = "
                f"{engine.freeze_lower_layers} are savings of the CPU path; on GPUs use bf16 and 0"
            )
        return "gpu"
    if engine.attention.startswith("flash_attention"):
        raise InputError(f'engine.attention = {engine.attention!r} needs a GPU; use "sdpa"')
    return "cpu"


def has_gpu() -> bool:
    """Whether this process can see an NVIDIA GPU."""
    gpus = Path("/proc/driver/nvidia/gpus")
    return os.environ.get("CUDA_VISIBLE_DEVICES") != "" and gpus.is_dir() and any(gpus.iterdir())
