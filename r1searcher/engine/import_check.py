"""Whether everything that training needs can be imported: `python -m r1searcher.engine.import_check cpu|gpu`.

Imports the packages, on `cpu` with its patches, and every module that a patch waits for, so that a name which moved is
seen at once.
"""

import importlib
import logging
import os
import sys
import warnings

from r1searcher.common.terminal import text_line
from r1searcher.engine import cpu, environment, import_patches
from r1searcher.engine.openrlhf.patches import order, recording
from r1searcher.engine.openrlhf.versions import require_tested_versions
from r1searcher.engine.openrlhf.workers import CPU_PATCHES
from r1searcher.engine.topology import Device
from r1searcher.errors import R1Error


def check(device: Device) -> str:
    """Import it all; returns the versions in one line. Whatever does not import raises."""
    os.environ.setdefault(environment.RUN, os.devnull)
    require_tested_versions(device)
    patches = [*recording.PATCHES, *order.PATCHES]
    if device == "cpu":
        os.environ |= {**cpu.ENVIRONMENT, cpu.CPU_ENV: cpu.CpuSettings().to_env()}
        patches += CPU_PATCHES
    import_patches.install(patches)
    packages = ("torch", "ray", "deepspeed", "vllm", "openrlhf", "r1searcher")
    modules = [importlib.import_module(name) for name in packages]
    for patch in patches:
        importlib.import_module(patch.module)
    importlib.import_module("openrlhf.cli.train_sft")
    importlib.import_module("r1searcher.engine.openrlhf.executor")
    return ", ".join(f"{m.__name__} {getattr(m, '__version__', '')}".strip() for m in modules)


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    try:
        text_line(f"imports: {check('gpu' if sys.argv[1:] == ['gpu'] else 'cpu')}")
    except R1Error as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
