"""The placement of a run: the device, and the GPUs of the trained model, its reference and vLLM.

Computed once per run from the settings and the hardware of this machine. Flags, launch script and the checks before a
run read it; nothing else computes a placement.
"""

import os
import re
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Literal

from r1searcher.config.settings import Engine, Settings
from r1searcher.engine.cluster.address import cluster_address
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

    async_steps: int
    """Steps that rollouts may run ahead of training, for which vLLM needs GPUs of its own."""

    @property
    def trainer_gpus(self) -> int:
        """GPUs of the trained model on all nodes."""
        return self.nodes * self.gpus_per_node

    @property
    def sft_processes(self) -> int:
        """Processes of the SFT, which runs on one node; on CPU it is one."""
        return self.gpus_per_node if self.device == "gpu" else 1

    @property
    def vllm_gpus(self) -> int:
        """GPUs of all vLLM engines."""
        return self.vllm_engines * self.tensor_parallel

    @property
    def gpus(self) -> int:
        """GPUs of everything together; with fewer, Ray waits forever."""
        if self.colocate:
            return max(self.trainer_gpus, self.vllm_gpus)
        return self.trainer_gpus * (1 + self.reference + self.critic) + self.vllm_gpus


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
        async_steps=engine.async_steps,
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
    engine, cluster = settings.engine, cluster_address(settings)
    present = gpu_count() != 0
    if engine.device == "gpu" and not present and not cluster:
        raise InputError('engine.device = "gpu": no NVIDIA GPU was found on this machine; use "auto" or "cpu"')
    if engine.device == "gpu" or (engine.device == "auto" and (present or cluster)):
        if engine.precision != "bf16" or engine.freeze_lower_layers:
            raise InputError(
                f"engine.precision = {engine.precision!r} and engine.freeze_lower_layers = "
                f"{engine.freeze_lower_layers} are savings of the CPU path; on GPUs use bf16 and 0"
            )
        return "gpu"
    if engine.attention.startswith("flash_attention"):
        raise InputError(f'engine.attention = {engine.attention!r} needs a GPU; use "sdpa"')
    return "cpu"


def require_gpus(topology: Topology, present: int, where: str) -> None:
    """Raises `InputError` if `where` (a machine or a cluster) has fewer GPUs than the engine would wait for."""
    if topology.gpus <= present:
        return
    several = "engine.nodes x " if topology.nodes > 1 else ""
    parts = [f"{several}engine.gpus = {topology.trainer_gpus}"]
    if not topology.colocate:
        parts += ["as many for the reference model"] * topology.reference + ["as many for the critic"] * topology.critic
    parts.append(f"vLLM {topology.vllm_gpus}{' of the same' * topology.colocate}")
    raise InputError(
        f"engine.gpus: the run needs {topology.gpus} GPUs ({', '.join(parts)}) and {where} has {present}; lower "
        "engine.gpus or engine.vllm_engines"
        + ("" if topology.colocate or topology.async_steps else ", or set engine.colocate = true")
    )


def gpu_count(root: Path = Path("/")) -> int | None:
    """How many NVIDIA GPUs this process can see. None: there are some, but WSL2 does not say how many.

    Reads the driver's files below `root` and `CUDA_VISIBLE_DEVICES`, where an index of -1 ends the list.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = None if named is None else list(takewhile(lambda one: one not in ("", "-1"), named.split(",")))
    present = gpus_of_the_driver(root)
    if visible is None or not present:
        return len(visible) if visible is not None and present is None else present
    slices = any(one.startswith("MIG-") for one in visible)  # one card may hold several
    return len(visible) if slices else min(len(visible), present)


def gpus_of_the_driver(root: Path) -> int | None:
    devices = [file for file in (root / "dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", file.name)]
    count = len(devices) or len(list((root / "proc/driver/nvidia/gpus").glob("*")))
    if not count and (root / "dev/dxg").exists() and (root / "usr/lib/wsl/lib/libcuda.so.1").exists():
        return None
    return count
