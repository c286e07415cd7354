"""Runs Python on one node of the run's cluster: `python -m r1searcher.engine.cluster.one_node GPUS ARGUMENTS...`.

The SFT's `launch.sh` starts it: the node with the GPUs may be another one than that of the command. The process there
is `python ARGUMENTS...`, and ends with this one, whatever ends it.
"""

import os
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence

from r1searcher.engine import cpu
from r1searcher.engine.cluster.join import joined, take_keys
from r1searcher.engine.environment import (
    PARENT_PIPE,
    RAY_ADDRESS,
    forwarded,
    keys_of,
    one_process,
    run_of_this_process,
    stop_when_left_alone,
)
from r1searcher.engine.failures import line_of
from r1searcher.engine.topology import topology_of
from r1searcher.errors import R1Error
from r1searcher.runs.resolved import read_run

LAST_LINES = 200
"""Lines of output that are repeated if the process fails: Ray may lose what a task printed just before its end."""


def main() -> int:
    if os.environ.get(PARENT_PIPE):
        stop_when_left_alone()
    gpus, arguments = int(sys.argv[1]), sys.argv[2:]
    run = run_of_this_process()
    settings = read_run(run)[1]
    variables = forwarded(settings, run, topology_of(settings, "cpu" if cpu.is_enabled() else "gpu"))
    try:
        with joined(os.environ[RAY_ADDRESS], variables, keys_of(settings)):
            returncode, last = _on_a_node(gpus, arguments)
    except R1Error as error:
        sys.exit(line_of(error))
    if returncode:
        with open(1, "wb", closefd=False) as log:
            log.write(last)
    return returncode


def _on_a_node(gpus: int, arguments: Sequence[str]) -> tuple[int, bytes]:
    import ray

    task = ray.remote(num_gpus=gpus, num_cpus=1, max_retries=0)(run_here)
    found: tuple[int, bytes] = ray.get(task.remote(arguments))
    return found


def run_here(arguments: Sequence[str]) -> tuple[int, bytes]:
    """In a worker: run `python ARGUMENTS...` to its end; its exit code and its last lines."""
    take_keys()
    alone: Mapping[str, str] = {} if "torch.distributed.run" in arguments else one_process()
    child = subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, **alone, PARENT_PIPE: "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    last: deque[bytes] = deque(maxlen=LAST_LINES)
    assert child.stdout is not None
    with open(1, "wb", closefd=False) as log:  # Ray passes it on to the run's log
        for line in child.stdout:
            log.write(line)
            log.flush()
            last.append(line)
    return child.wait(), b"".join(last)


if __name__ == "__main__":
    sys.exit(main())
