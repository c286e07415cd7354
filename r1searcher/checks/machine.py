"""Whether this machine can train as the settings ask."""

from r1searcher.checks.base import Check, Skip, StageInputs
from r1searcher.engine.openrlhf.patches.flash_attention import has_flash_attention_2, has_flash_attention_4
from r1searcher.engine.openrlhf.versions import require_tested_versions, require_training_packages
from r1searcher.engine.topology import Topology, gpu_count, require_gpus, topology_of
from r1searcher.errors import InputError


def _packages(inputs: StageInputs) -> None:
    """The training packages are installed."""
    require_training_packages()


def _device(inputs: StageInputs) -> None:
    """This machine has the device and the GPUs that the settings ask for."""
    inputs.topology = topology_of(inputs.settings)
    present = gpu_count()
    if inputs.topology.device == "cpu" or present is None:
        return
    if inputs.stage == "sft" or inputs.settings.engine.ray_address:
        _require_gpus_here(inputs, inputs.topology, present)
    else:
        require_gpus(inputs.topology, present, "this machine")


def _require_gpus_here(inputs: StageInputs, topology: Topology, present: int) -> None:
    """SFT and evaluation run on this machine, even where RL runs on a cluster."""
    settings = inputs.settings
    if inputs.stage == "sft" and topology.sft_processes > present:
        raise InputError(
            f"engine.gpus = {topology.sft_processes}: SFT runs on this machine, which has {present} GPUs; start it "
            "on a node with enough, or lower engine.gpus in [sft.engine]"
        )
    evaluates = inputs.stage != "sft" and settings.data.held_out and settings.evaluation.questions
    if evaluates and topology.tensor_parallel > present:
        raise InputError(
            f"evaluation.questions = {settings.evaluation.questions}: models are evaluated on this machine, which has "
            f"{present} GPUs, and one takes engine.tensor_parallel = {topology.tensor_parallel}; start the run on a "
            "node with enough, or set evaluation.questions = 0"
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


packages = Check(_packages)
device = Check(_device)
versions = Check(_versions)
attention = Check(_attention)
