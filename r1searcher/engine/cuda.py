"""The CUDA toolkit among the packages of this environment."""

import os
from importlib.util import find_spec
from pathlib import Path


def packaged_toolkit() -> Path | None:
    """The folder of NVIDIA's compiler packages, which have the CUDA version of torch; None if not installed."""
    spec = find_spec("nvidia")
    for folder in (spec and spec.submodule_search_locations) or ():
        if (Path(folder) / "cu13/bin/nvcc").is_file():
            return Path(folder) / "cu13"
    return None


def use_packaged_toolkit() -> None:
    """Kernels that are compiled on first use take this toolkit, unless the user's environment names one.

    Call it before torch is imported, which looks for a toolkit then and may find one of another version.
    """
    toolkit = packaged_toolkit()
    if toolkit and not (os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")):
        os.environ["CUDA_HOME"] = str(toolkit)
