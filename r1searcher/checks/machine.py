"""Whether this machine can train as the settings ask."""

from r1searcher.checks.base import Check, Skip, StageInputs
from r1searcher.engine.openrlhf.versions import require_tested_versions, require_training_packages
from r1searcher.engine.topology import topology_of
from r1searcher.errors import InputError


def _packages(inputs: StageInputs) -> None:
    """The training packages are installed."""
    require_training_packages()


def _device(inputs: StageInputs) -> None:
    """This machine has the device and the GPUs that the settings ask for."""
    inputs.topology = topology_of(inputs.settings)


def _versions(inputs: StageInputs) -> None:
    """The packages have the versions that training was tested with."""
    if inputs.topology is None:
        raise Skip("there is no device to train on")
    try:
        require_training_packages()
    except InputError:
        raise Skip("packages are missing") from None
    require_tested_versions(inputs.topology.device)


packages = Check(_packages)
device = Check(_device)
versions = Check(_versions)
