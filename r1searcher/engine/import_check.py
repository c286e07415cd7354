"""Whether everything that training needs can be imported: `python -m r1searcher.engine.import_check cpu|gpu`.

Imports the packages, on `cpu` with its patches, and every module that a patch waits for, so that a moved name is
detected at once.
"""

import contextlib
import importlib
import logging
import os
import sys
import warnings

from r1searcher.common.terminal import text_line
from r1searcher.engine import cpu, environment
from r1searcher.engine.openrlhf import workers
from r1searcher.engine.openrlhf.patches.flash_attention import has_flash_attention_2
from r1searcher.engine.topology import Device
from r1searcher.errors import InputError, R1Error


def check(device: Device) -> str:
    """Import everything; returns the versions in one line. Raises any import error."""
    os.environ.setdefault(environment.RUN, os.devnull)
    if device == "cpu":
        os.environ |= {**cpu.ENVIRONMENT, cpu.CPU_ENV: cpu.CpuSettings().to_env()}
    workers.setup()
    if device == "gpu":
        require_cuda_build()
    packages = ("torch", "ray", "deepspeed", "vllm", "openrlhf", "r1searcher")
    modules = [importlib.import_module(name) for name in packages]
    for patch in (*workers.PATCHES[device], *workers.RUN_PATCHES):
        importlib.import_module(patch.module)
    importlib.import_module("openrlhf.cli.train_sft")
    importlib.import_module("r1searcher.engine.openrlhf.executor")
    versions = ", ".join(f"{m.__name__} {getattr(m, '__version__', '')}".strip() for m in modules)
    return f"{versions}; attention: {', '.join(attention_implementations(device))}"


def require_cuda_build() -> None:
    """Raises `InputError` if torch was built only for CPUs, as on some package indexes."""
    import torch

    if torch.version.cuda is None:
        raise InputError(
            f"torch {torch.__version__} is built for CPUs: remove this environment, then run "
            "`scripts/install-training gpu`"
        )


def attention_implementations(device: Device) -> list[str]:
    """Values of `engine.attention` that can be imported here."""
    found = ["sdpa", "eager"]
    if device == "gpu":
        found += ["flash_attention_2"] * has_flash_attention_2()
        with contextlib.suppress(ImportError):
            importlib.import_module("flash_attn.cute")
            found.append("flash_attention_4")
    return found


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    try:
        text_line(f"imports: {check('gpu' if sys.argv[1:] == ['gpu'] else 'cpu')}")
    except R1Error as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
