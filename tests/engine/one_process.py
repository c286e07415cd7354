"""Programs of one DeepSpeed process on CPU, in which nothing is imported or patched before."""

import os
import subprocess
import sys

from r1searcher.engine.environment import one_process

WITHOUT_A_COMPILER = """
import deepspeed.ops
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # it would be compiled, for all-reduce alone
"""


def output_of(program: str, *words: str) -> str:
    """What the program prints, run to its end with these arguments."""
    variables = {**os.environ, **one_process(), "DS_ACCELERATOR": "cpu"}
    command = [sys.executable, "-c", WITHOUT_A_COMPILER + program, *words]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
