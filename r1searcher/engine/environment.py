"""Environment variables of the engine's processes: what they need in addition to OpenRLHF's flags."""

import os
import signal
import socket
import threading
from collections.abc import Mapping
from pathlib import Path

from r1searcher.config.settings import Settings
from r1searcher.engine import cpu
from r1searcher.engine.cluster.address import cluster_address
from r1searcher.engine.openrlhf.versions import ALLOW_UNTESTED
from r1searcher.engine.topology import Topology
from r1searcher.errors import R1Error
from r1searcher.runs.folder import RunFolder

RUN = "R1S_RUN"
"""The run folder, with the settings of the run."""

RAY_ADDRESS = "R1S_RAY_ADDRESS"
"""The cluster to join; if not set, a local one is started."""

RAY_FOLDER = "R1S_RAY_FOLDER"
"""Where a local Ray keeps its sockets and logs; a short path."""

PARENT_PIPE = "R1S_PARENT_PIPE"
"""The launcher keeps the child's standard input open; end of file there means that the launcher died."""

ALL_LOGITS = "R1S_ALL_LOGITS"
"""Set where logits of all tokens are computed, not only of those that predict a trained token."""


def run_of_this_process() -> RunFolder:
    """The run of this process. Raises `R1Error` in a process that was not started for one."""
    folder = os.environ.get(RUN)
    if not folder:
        raise R1Error(f"{RUN} is not set: start the engine with `r1s stage1` or the run's launch.sh")
    return RunFolder(Path(folder))


def stop_when_left_alone() -> None:
    """Without its launcher a run would continue unnoticed, and a second one would write to its folder."""

    def wait() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock the interpreter needs at exit
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def one_process() -> dict[str, str]:
    """The variables that torchrun would set for a single process on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}


def environment(settings: Settings, run: RunFolder, topology: Topology) -> dict[str, str]:
    """Everything that `launch.sh` exports."""
    variables = {
        RUN: str(run.path.resolve()),
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",  # tokenizers warn, and may hang, when a process that used them forks
        "HF_HUB_OFFLINE": "1",  # models are local at this point
        "HF_DATASETS_CACHE": str((run.path / "cache").resolve()),
        "RAY_USAGE_STATS_ENABLED": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "RAY_DEDUP_LOGS": "0",
    }
    engine, cluster = settings.engine, cluster_address(settings)
    if cluster:
        variables[RAY_ADDRESS] = cluster
    if not engine.head_on_action_tokens:
        variables[ALL_LOGITS] = "1"
    if topology.device == "cpu":
        patched = cpu.CpuSettings(
            engine.precision, engine.freeze_lower_layers, engine.attention, engine.cpu_kv_cache_gib
        )
        variables |= {
            cpu.CPU_ENV: patched.to_env(),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0)))),
            **cpu.ENVIRONMENT,
        }
        if not cluster:
            variables |= _LOOPBACK
    elif engine.adam_offload or not cluster:  # Adam on the host computes with these threads
        share = max(1, len(os.sched_getaffinity(0)) * topology.nodes // topology.gpus)  # Ray sets 1 for part of a core
        variables["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(share))
    return variables


_LOOPBACK = {
    "GLOO_SOCKET_IFNAME": "lo",
    "VLLM_HOST_IP": "127.0.0.1",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # despite its name: Ray uses only the loopback interface
}
"""Everything is on this machine, so everything uses its loopback interface."""

_NETWORK = ("NCCL_", "GLOO_", "UCX_")
"""Prefixes of the variables with which users adapt the libraries of the transfer between GPUs to their network."""

_OF_THIS_MACHINE = ("RAY_", "R1S_RAY_")
"""Prefixes of what is about the Ray that this machine starts or joins."""


def forwarded(
    settings: Settings, run: RunFolder, topology: Topology, variables: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Those of `variables` that workers on a given cluster get.

    What `launch.sh` exports, except Ray's own; the user's number of threads and settings of the network. Workers of a
    local Ray inherit everything; on a cluster, nothing else of this machine's environment is passed but `keys_of`.
    """
    exported = [name for name in environment(settings, run, topology) if not name.startswith(_OF_THIS_MACHINE)]
    network = [name for name in variables if name.startswith(_NETWORK)]
    names = (*exported, *network, ALLOW_UNTESTED, "OMP_NUM_THREADS")
    return {name: variables[name] for name in names if name in variables}


def keys_of(settings: Settings, variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Those of `variables` that may be secret and that workers on a given cluster get: what the retriever declares.

    They are passed by `cluster.join`, never on a command line and never in a file.
    """
    names = settings.retrieval.engine.variables if settings.retrieval.is_set else ()
    return {name: variables[name] for name in names if name in variables}
