"""Whether the engine can place and divide the work as the settings ask."""

from r1searcher.checks.base import Check, Skip, StageInputs
from r1searcher.engine.openrlhf.arithmetic import placement_problems
from r1searcher.errors import InputError


def _placement(inputs: StageInputs) -> None:
    """Batches, processes and GPUs divide as OpenRLHF needs."""
    if inputs.topology is None:
        raise Skip("there is no device to train on")
    if problems := placement_problems(inputs.settings, inputs.topology, inputs.stage):
        raise InputError("\n  ".join(problems))


placement = Check(_placement)
