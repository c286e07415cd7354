"""Whether everything that training needs can be imported: `python -m r1searcher.engine.import_check cpu|gpu`.

Really imports the packages, on `cpu` through the adapter, and every module that a patch waits for, so that a name which
moved shows at once.
"""

import importlib
import logging
import os
import sys
import warnings

from r1searcher.common.terminal import text_line
from r1searcher.engine import cpu, data, import_patches, watch
from r1searcher.errors import R1Error


def check(device: str) -> str:
    """Import it all; returns the versions in one line. Whatever does not import raises."""
    os.environ.setdefault(watch.RUN_VARIABLE, os.devnull)
    patches = [*watch.PATCHES, *data.PATCHES]
    if device == "cpu":
        os.environ |= {**cpu.ENVIRONMENT, cpu.CPU_ENV: cpu.CpuSettings().to_env()}
        cpu.require_tested_versions(cpu.TESTED_VERSIONS)
        patches += cpu.PATCHES
    import_patches.install(patches)
    packages = ("torch", "ray", "deepspeed", "vllm", "openrlhf", "r1searcher")
    modules = [importlib.import_module(name) for name in packages]
    for patch in patches:
        importlib.import_module(patch.module)
    importlib.import_module("openrlhf.cli.train_sft")
    importlib.import_module("r1searcher.engine.executor")
    return ", ".join(f"{m.__name__} {getattr(m, '__version__', '')}".strip() for m in modules)


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    try:
        text_line(f"imports: {check(sys.argv[1])}")
    except R1Error as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
