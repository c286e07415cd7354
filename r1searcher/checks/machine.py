"""Whether this machine can train as the settings ask."""

import os
import shutil

from r1searcher.checks.base import Check, Skip, StageInputs
from r1searcher.engine.cluster.address import cluster_address
from r1searcher.engine.openrlhf.patches.flash_attention import has_flash_attention_2, has_flash_attention_4
from r1searcher.engine.openrlhf.versions import require_tested_versions, require_training_packages
from r1searcher.engine.topology import gpu_count, require_gpus, topology_of
from r1searcher.errors import InputError


def _packages(inputs: StageInputs) -> None:
    """The training packages are installed."""
    require_training_packages()


def _device(inputs: StageInputs) -> None:
    """This machine has the device and the GPUs that the settings ask for; a cluster is asked later."""
    inputs.topology = topology_of(inputs.settings)
    present = gpu_count()
    if inputs.topology.device == "cpu" or present is None or cluster_address(inputs.settings):
        return
    if inputs.stage != "sft":
        require_gpus(inputs.topology, present, "this machine")
    elif inputs.topology.sft_processes > present:
        raise InputError(
            f"engine.gpus = {inputs.topology.sft_processes}: this machine has {present} GPUs; lower engine.gpus in "
            "[sft.engine]"
        )


def _versions(inputs: StageInputs) -> None:
    """The packages have the versions that training was tested with."""
    if inputs.topology is None:
        raise Skip("there is no device to train on")
    try:
        require_training_packages()
    except InputError:
        raise Skip("packages are missing") from None
    require_tested_versions(inputs.topology.device)


def _attention(inputs: StageInputs) -> None:
    """The package of `engine.attention` is installed."""
    if inputs.topology is None:
        raise Skip("there is no device to train on")
    chosen = inputs.settings.engine.attention
    if chosen == "flash_attention_2" and not has_flash_attention_2():
        raise InputError('engine.attention = "flash_attention_2": the package flash-attn is not installed; use "sdpa"')
    if chosen == "flash_attention_4" and not has_flash_attention_4():
        raise InputError(
            'engine.attention = "flash_attention_4": the package flash-attn-4 is not installed; use "sdpa", or run '
            "`scripts/install-training gpu`"
        )


def _compiler(inputs: StageInputs) -> None:
    """A C++ compiler is installed, if Adam runs in host memory: DeepSpeed compiles it when the first run starts."""
    if inputs.topology is None or not inputs.settings.engine.adam_offload:
        raise Skip("Adam does not run in host memory")
    compiler = os.environ.get("CXX", "c++")  # as torch finds it
    if shutil.which(compiler) is None:
        raise InputError(
            f"engine.adam_offload = true: there is no C++ compiler {compiler} on this machine; install g++, or set "
            "engine.adam_offload = false"
        )


packages = Check(_packages)
device = Check(_device)
versions = Check(_versions)
attention = Check(_attention)
compiler = Check(_compiler)
