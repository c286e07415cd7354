"""The engine's process: `python -m r1searcher.engine.openrlhf.main rl|sft FLAGS`, as a run's `launch.sh` calls it.

Starts (or joins) Ray with our setup in every worker, then runs OpenRLHF's own main on the flags. What it needs
in addition to OpenRLHF's flags is in environment variables (see `engine.environment`).
"""

import contextlib
import os
import runpy
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from r1searcher.engine import cpu
from r1searcher.engine.cluster.join import joined
from r1searcher.engine.environment import (
    PARENT_PIPE,
    RAY_ADDRESS,
    RAY_FOLDER,
    forwarded,
    keys_of,
    run_of_this_process,
    stop_when_left_alone,
)
from r1searcher.engine.failures import line_of
from r1searcher.engine.openrlhf import workers
from r1searcher.engine.topology import LOGICAL_GPUS, require_gpus, topology_of
from r1searcher.errors import InputError, R1Error
from r1searcher.runs.resolved import read_run

MODULES = {"rl": "openrlhf.cli.train_ppo_ray", "sft": "openrlhf.cli.train_sft"}


@contextlib.contextmanager
def ray_of_the_run() -> Iterator[None]:
    """A local Ray on the loopback interface, or the cluster that the settings name, until the block is left."""
    import ray

    hook = f"{workers.__name__}.{workers.setup.__name__}"
    run = run_of_this_process()
    settings = read_run(run)[1]
    topology = topology_of(settings, "cpu" if cpu.is_enabled() else "gpu")
    address = os.environ.get(RAY_ADDRESS)
    with contextlib.ExitStack() as stack:
        if address:
            stack.enter_context(joined(address, forwarded(settings, run, topology), keys_of(settings), hook))
        else:
            _start_local_ray(hook)
        present, where = int(ray.cluster_resources().get("GPU", 0)), "the Ray cluster" if address else "this machine"
        require_gpus(topology, present, where)  # Ray would wait for more without a message and without an end
        yield


def _start_local_ray(hook: str) -> None:
    import ray

    without_gpu: dict[str, Any] = {
        # Logical resources: OpenRLHF requests a GPU from Ray for each of its models; here each is a few cores.
        "num_gpus": LOGICAL_GPUS,
        "num_cpus": 2 * LOGICAL_GPUS,
        "object_store_memory": 512 * 2**20,
    }
    for attempts_left in (2, 1, 0):
        try:
            ray.init(
                address="local",  # otherwise Ray joins a cluster that its RAY_ADDRESS names, or one on this machine
                include_dashboard=False,
                _temp_dir=os.environ.get(RAY_FOLDER),
                runtime_env={"worker_process_setup_hook": hook},
                **(without_gpu if cpu.is_enabled() else {}),
            )
            return
        except Exception as error:  # Ray's own class for it is `Exception`
            # A busy machine may need longer than the 30 s that Ray waits for its own processes.
            if "timed out during startup" not in str(error) or not attempts_left:
                raise
            ray.shutdown()


def _refuse_keys(flags: Sequence[str]) -> None:
    """OpenRLHF's own flag for W&B shows the key on the command line and in the run's settings there, and in an SFT it
    replaces TensorBoard."""
    if any(flag.startswith("--logger.wandb.key") for flag in flags):
        raise InputError(
            "--logger.wandb.key would show the key: set [tracking.wandb] and the environment variable WANDB_API_KEY"
        )


def main() -> NoReturn:
    kind, flags = sys.argv[1], sys.argv[2:]
    if os.environ.get(PARENT_PIPE):
        stop_when_left_alone()
    with contextlib.ExitStack() as stack:
        try:
            _refuse_keys(flags)
            workers.setup()
            if cpu.is_enabled():
                workers.require_vllm_entry_point()
            if kind == "rl":
                stack.enter_context(ray_of_the_run())
        except R1Error as error:
            sys.exit(line_of(error))
        sys.argv = [MODULES[kind], *flags]
        runpy.run_module(MODULES[kind], run_name="__main__", alter_sys=True)
    sys.exit(0)


if __name__ == "__main__":
    main()
