"""What tests need of trackers: the part of W&B's server that its client needs, and what was logged."""

import base64
import gzip
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from r1searcher.common.files import read_rows
from r1searcher.runs.folder import RunFolder

TRACKERS_HERE = pytest.mark.skipif(
    find_spec("wandb") is None or find_spec("trackio") is None, reason="wandb or trackio is not installed: make install"
)

KEY = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Received:
    """The requests of W&B's client: path, credentials and body."""

    address: str
    requests: list[tuple[str, str, bytes]] = field(default_factory=list)

    def lines(self, file: str) -> list[dict[str, Any]]:
        """What was sent to the end of a file of a run, without what W&B adds itself."""
        sent = [json.loads(body) for path, _, body in self.requests if path.endswith("/file_stream")]
        rows = [json.loads(row) for one in sent for row in one.get("files", {}).get(file, {}).get("content", ())]
        return [{key: value for key, value in row.items() if not key.startswith("_")} for row in rows]

    @property
    def runs(self) -> set[str]:
        """The runs that were written, by their id in the path."""
        return {path.split("/")[-2] for path, _, _ in self.requests if path.endswith("/file_stream")}


class WandbServer(BaseHTTPRequestHandler):
    """What W&B's client needs of its server to send a run."""

    received: Received

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
        self.received.requests.append((self.path, self.headers.get("Authorization") or "", body))
        call = json.loads(body) if self.path == "/graphql" else {}
        project = {"name": "r1searcher", "entity": {"name": "me"}}
        name = call.get("variables", {}).get("name")
        bucket = {"id": "1", "name": name, "displayName": name, "project": project, "historyLineCount": 0}
        data = {
            "Viewer": {"viewer": {"id": "1", "entity": "me", "username": "me", "flags": "{}"}},
            "UpsertBucket": {"upsertBucket": {"bucket": bucket, "inserted": True}},
            "CreateRunFiles": {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": []}},
        }
        said = json.dumps({"data": data.get(call.get("operationName", ""), {})}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *words: Any) -> None: ...


@contextmanager
def wandb_server() -> Iterator[Received]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), WandbServer)
    WandbServer.received = received = Received(f"http://127.0.0.1:{server.server_port}")
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()


def recorded(run: RunFolder) -> list[dict[str, Any]]:
    """The rows of `metrics.jsonl`, without their time and without numbers that are not finite."""
    rows = read_rows(run.metrics)
    return [{key: value for key, value in row.items() if key != "time" and value is not None} for row in rows]


def without_key(folder: Path) -> bool:
    spellings = (KEY.encode(), base64.b64encode(f"api:{KEY}".encode()))
    files = [file.read_bytes() for file in folder.rglob("*") if file.is_file()]
    return bool(files) and not any(spelling in file for spelling in spellings for file in files)


def trackio_rows(folder: Path, project: str = "r1searcher") -> list[dict[str, Any]]:
    """What trackio has of the project's only run, from its database in `folder`."""
    with sqlite3.connect(folder / f"{project}.db") as database:
        found = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
    assert len({name for name, _, _ in found}) == 1
    return [{"step": step, **json.loads(row)} for _, step, row in found]
