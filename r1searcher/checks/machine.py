"""Whether this machine can train as the settings ask."""

from r1searcher.checks.base import Check, StageInputs
from r1searcher.engine.launch import device as device_of
from r1searcher.engine.launch import require_training_packages


def _packages(inputs: StageInputs) -> None:
    require_training_packages()


def _device(inputs: StageInputs) -> None:
    device_of(inputs.settings)


packages = Check(_packages)
device = Check(_device)
