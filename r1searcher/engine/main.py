"""The engine's process: `python -m r1searcher.engine.main rl|sft FLAGS`, as `launch.sh` in a run folder calls it.

Starts (or joins) Ray with our set-up in every worker, then runs OpenRLHF's own main on the flags. What it is to do
beyond OpenRLHF's flags stands in the environment (see `launch.environment`).
"""

import os
import runpy
import signal
import sys
import threading
from typing import Any, NoReturn

from r1searcher.engine import cpu, watch, workers
from r1searcher.errors import R1Error

MODULES = {"rl": "openrlhf.cli.train_ppo_ray", "sft": "openrlhf.cli.train_sft"}

RAY_ADDRESS = "R1S_RAY_ADDRESS"
"""Environment variable: the cluster to join; none starts a local one."""

RAY_FOLDER = "R1S_RAY_FOLDER"
"""Environment variable: where a local Ray keeps its sockets and logs; a short path."""

PARENT_PIPE = "R1S_PARENT_PIPE"
"""Environment variable: the launcher holds our standard input open; end of file there means that it died."""


def start_ray() -> None:
    """A local Ray on the loopback interface, or the cluster that the settings name."""
    import ray

    hook = f"{workers.__name__}.{workers.setup.__name__}"
    address = os.environ.get(RAY_ADDRESS)
    if address:
        ours = {name: value for name, value in os.environ.items() if name in (watch.RUN_VARIABLE, cpu.CPU_ENV)}
        ray.init(address=address, runtime_env={"worker_process_setup_hook": hook, "env_vars": ours})
        return
    without_gpu: dict[str, Any] = {
        # Logical resources: OpenRLHF asks Ray for a GPU for each of its models, and here each is some cores.
        "num_gpus": 16,
        "num_cpus": 32,
        "object_store_memory": 512 * 2**20,
    }
    for attempts_left in (2, 1, 0):
        try:
            ray.init(
                include_dashboard=False,
                _temp_dir=os.environ.get(RAY_FOLDER),
                runtime_env={"worker_process_setup_hook": hook},
                **(without_gpu if os.environ.get(cpu.CPU_ENV) else {}),
            )
            return
        except Exception as error:  # Ray's own class for it is `Exception`
            # A busy machine may need longer than the 30 s that Ray waits for its own processes.
            if "timed out during startup" not in str(error) or not attempts_left:
                raise
            ray.shutdown()


def stop_when_left_alone() -> None:
    """Without its launcher a run would go on unseen, and a second one would write into its folder."""

    def wait() -> None:
        while os.read(0, 1):  # not through sys.stdin, whose lock the interpreter wants at its end
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def main() -> NoReturn:
    kind, flags = sys.argv[1], sys.argv[2:]
    if os.environ.get(PARENT_PIPE):
        stop_when_left_alone()
    try:
        workers.setup()
    except R1Error as error:
        sys.exit(f"{type(error).__module__}.{type(error).__name__}: {error}")
    if kind == "rl":
        start_ray()
    sys.argv = [MODULES[kind], *flags]
    runpy.run_module(MODULES[kind], run_name="__main__", alter_sys=True)
    sys.exit(0)


if __name__ == "__main__":
    main()
