"""A Ray cluster of node processes on this machine, each with logical GPUs, as `ray start` starts them."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.processes import with_variable

HEAD, WORKER, THIRD = "127.0.0.2", "127.0.0.3", "127.0.0.4"
"""All are this machine's loopback interface; Ray replaces 127.0.0.1, and takes these for three machines."""

MARK = "R1S_TEST_NODE"
"""Environment variable that marks the processes of one node."""


class Node:
    """`ray start --block` with everything that it starts."""

    def __init__(self, words: Sequence[str], log: Path, variables: Mapping[str, str], inside: Sequence[str]) -> None:
        self.mark = uuid.uuid4().hex
        self.log = log
        environment = {
            **os.environ,
            "RAY_USAGE_STATS_ENABLED": "0",
            **variables,
            MARK: self.mark,
        }
        command = [*inside, sys.executable, "-m", "ray.scripts.scripts", "start", *words]
        command += ["--num-cpus=4", "--num-gpus=1", "--object-store-memory=100000000", "--block"]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )

    def wait(self) -> None:
        """Until Ray says that the node has started."""
        while b"will now block" not in self.log.read_bytes():
            assert self.process.poll() is None, self.log.read_text("utf-8", "replace")
            time.sleep(0.1)

    def kill(self) -> None:
        """kill -9 of the raylet, its workers and everything else of the node."""
        while pids := self.processes():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        self.process.wait()

    def processes(self) -> list[int]:
        return with_variable(f"{MARK}={self.mark}")

    def workers(self) -> Iterator[str]:
        """The names of Ray's tasks and actors that run on the node."""
        for pid in self.processes():
            with contextlib.suppress(OSError):
                name = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").strip("\0 ")
                if name.startswith("ray::") and name not in _RAYS_OWN:
                    yield name.removeprefix("ray::")


_RAYS_OWN = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent")


class Cluster:
    """The nodes, the head first, and the address of the cluster."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.nodes = folder, list[Node]()
        self.ray = Path(tempfile.mkdtemp(prefix="r1s-", dir="/tmp"))  # sockets need a short path
        port = free_port()
        self.address = f"{HEAD}:{port}"
        words = ["--head", f"--port={port}", f"--node-ip-address={HEAD}", "--include-dashboard=false"]
        # Ray otherwise notices the end of a node after 15 seconds.
        noticed = {"RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "4"}
        self._start([*words, f"--temp-dir={self.ray}"], noticed, ())

    def add(self, address: str, inside: Sequence[str] = (), **variables: str) -> Node:
        """Start another node. `inside` are words before its command, `variables` its environment."""
        return self._start([f"--address={self.address}", f"--node-ip-address={address}"], variables, inside)

    def _start(self, words: Sequence[str], variables: Mapping[str, str], inside: Sequence[str]) -> Node:
        self.nodes.append(Node(words, self.folder / f"node{len(self.nodes)}.log", variables, inside))
        self.nodes[-1].wait()
        return self.nodes[-1]

    @contextlib.contextmanager
    def another(self, address: str, inside: Sequence[str], **variables: str) -> Iterator[None]:
        """One more node, until the block is left."""
        node = self.add(address, inside, **variables)
        try:
            yield
        finally:
            node.process.terminate()  # so that it leaves the cluster at once
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.process.wait(timeout=20)
            node.kill()
            self.nodes.remove(node)

    def end(self) -> None:
        for node in reversed(self.nodes):
            node.kill()
        shutil.rmtree(self.ray, ignore_errors=True)


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster of two nodes."""
    made = Cluster(folder)
    try:
        made.add(WORKER)
        yield made
    finally:
        made.end()


def free_port() -> int:
    with socket.create_server((HEAD, 0)) as free:
        port: int = free.getsockname()[1]
    return port
