"""What every process of the engine does before it imports OpenRLHF or vLLM.

Called by their public extension points: `main` in the driver, Ray in its workers (`worker_process_setup_hook`), vLLM in
its own processes (entry point group `vllm.general_plugins`).
"""

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points

from r1searcher.engine import cpu, environment, import_patches
from r1searcher.engine.cluster.join import take_keys
from r1searcher.engine.cuda import use_packaged_toolkit
from r1searcher.engine.import_patches import Patch
from r1searcher.engine.openrlhf.patches import ahead, flash_attention, logits, lora, order, padding, recording, updates
from r1searcher.engine.openrlhf.patches import cpu as cpu_patches
from r1searcher.engine.openrlhf.versions import require_tested_versions
from r1searcher.engine.topology import Device
from r1searcher.engine.vllm import patches as vllm_patches
from r1searcher.errors import InputError

_CPU_PATCHES = [*cpu_patches.PATCHES, *vllm_patches.PATCHES, *vllm_patches.SAMPLING]

_ON_BOTH = [
    *flash_attention.PATCHES,
    *order.PATCHES,
    *padding.PATCHES,
    *lora.PATCHES,
    *logits.PATCHES,
    *updates.PATCHES,
]

PATCHES: Mapping[Device, Sequence[Patch]] = {
    "cpu": [*_ON_BOTH, *_CPU_PATCHES],
    "gpu": _ON_BOTH,
}
"""Patches per device."""

RUN_PATCHES = [*recording.PATCHES, *ahead.PATCHES]
"""Patches of the processes of a run, in addition."""

VLLM_GROUP, VLLM_ENTRY = "vllm.general_plugins", "r1searcher_cpu"
"""The entry point through which vLLM's processes find `install_cpu_patches`; `cpu.ENVIRONMENT` allows it."""


def setup() -> None:
    """Register the patches; imports nothing heavy. In a worker of a cluster, takes the run's keys.

    Raises `InputError` if a package has an untested version.
    """
    take_keys()
    device: Device = "cpu" if cpu.is_enabled() else "gpu"
    require_tested_versions(device)
    if device == "gpu":
        use_packaged_toolkit()
    import_patches.install(PATCHES[device])
    if os.environ.get(environment.RUN):
        import_patches.install(RUN_PATCHES)


def require_vllm_entry_point() -> None:
    """Raises `InputError` if vLLM's processes would not find `install_cpu_patches`.

    This happens after an update of an editable installation, whose metadata does not change. The engine would wait
    for weights that vLLM cannot receive, without an error.
    """
    wanted = f"{__name__}:{install_cpu_patches.__name__}"
    if not any(entry.value == wanted for entry in entry_points(group=VLLM_GROUP, name=VLLM_ENTRY)):
        raise InputError(
            f"the installed metadata of r1searcher is out of date: its entry point {VLLM_ENTRY} is not {wanted}; run "
            "`scripts/install-training cpu` again"
        )


def install_cpu_patches() -> None:
    """Those for machines without a GPU, in a process of vLLM: in a run all of them, otherwise those of sampling."""
    if cpu.is_enabled():
        import_patches.install(_CPU_PATCHES)
    elif os.environ.get("VLLM_TARGET_DEVICE") == cpu.ENVIRONMENT["VLLM_TARGET_DEVICE"]:
        import_patches.install(vllm_patches.SAMPLING)
