"""Training and sampling without a GPU: settings of the patches of OpenRLHF and vLLM, and official switches.

The patches are in `openrlhf.patches.cpu` and `vllm.patches`. They act only where the environment variable `CPU_ENV` is
set, which the launcher sets on machines without a GPU.
"""

import json
import os
from dataclasses import asdict, dataclass
from typing import Literal

CPU_ENV = "R1S_CPU"
"""Environment variable with the `CpuSettings` as JSON."""

ENVIRONMENT = {
    "DS_ACCELERATOR": "cpu",
    "VLLM_TARGET_DEVICE": "cpu",
    "VLLM_PLUGINS": "r1searcher_cpu",  # our patches, and no other package's
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; in training, `kv_cache_gib` replaces it
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # trainer and sampler alternate on the same cores
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the worker runs in the engine's process: one process less
    "TORCHDYNAMO_DISABLE": "1",  # torch.compile would start a C++ compiler for two small functions
    "RAY_ENABLE_ZERO_COPY_TORCH_TENSORS": "0",  # tensors would alias Ray's read-only memory
    "RAY_worker_niceness": "0",  # Ray's 15 lets any other process starve the run
    "RAY_worker_register_timeout_seconds": "600",  # Ray's 60 s are too short when other processes keep cores busy
    "RAY_gcs_server_request_timeout_seconds": "600",
    "MALLOC_ARENA_MAX": "2",  # glibc's per-thread arenas keep gigabytes
    "THP_MEM_ALLOC_ENABLE": "1",  # torch: huge pages for large tensors; otherwise half of the time is page faults
}
"""Official switches of the packages, instead of patches."""


@dataclass(frozen=True)
class CpuSettings:
    precision: Literal["bf16", "fp32", "mixed"] = "bf16"
    """bf16 and fp32 apply to everything. mixed keeps weights and Adam in fp32, computes and samples in bf16."""

    freeze_lower_layers: int = 0
    """If not 0, the embeddings and the lowest N layers do not get gradients, and the backward pass ends there."""

    attention: str = "sdpa"
    """Attention implementation of the trainer, for packed samples too."""

    kv_cache_gib: float = 1.0
    """vLLM's cache of keys and values, in GiB."""

    def to_env(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_env(cls) -> "CpuSettings":
        return cls(**json.loads(os.environ[CPU_ENV]))


def is_enabled() -> bool:
    """Whether this process runs without a GPU."""
    return bool(os.environ.get(CPU_ENV))
