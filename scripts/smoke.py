#!/usr/bin/env python3
"""Uses an installed `r1s` as a new user would: help, index, search, recall, score, serve.

    scripts/smoke.py R1S       R1S: the command, for example .venv/bin/r1s

Does not import r1searcher and runs in a temporary folder, so that only the installed package is tested.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PASSAGES = [
    {"id": "1", "title": "Silver Harbor", "text": "Silver Harbor is a film directed by Ada Quill."},
    {"id": "2", "title": "Ada Quill", "text": "Ada Quill was born in Foxford."},
    {"id": "3", "title": "Foxford", "text": "Foxford is a town on the river Moy."},
]
QUESTION = "Who directed Silver Harbor?"
ROW = {"id": "q", "question": QUESTION, "golden_answers": ["Ada Quill"]}
DEADLINE = 60.0
"""Seconds that the server has to start; only a server that never starts takes this long."""


def main(r1s: Path, folder: Path) -> None:
    def run(*arguments: str) -> str:
        command = [str(r1s), *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=ENVIRONMENT, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def expect(what: str, holds: bool, output: object) -> None:
        if not holds:
            sys.exit(f"r1s {what} printed unexpected output:\n{output}")
        print(f"r1s {what}: as expected")

    write(folder / "passages.jsonl", PASSAGES)
    write(folder / "questions.jsonl", [ROW])
    write(folder / "predictions.jsonl", [{**ROW, "prediction": "Ada Quill"}])

    output = run("--help")
    expect("--help", "stage1" in output and "evaluate" in output, output)
    run("index-corpus", "passages.jsonl", "--to", "index")
    hits = json.loads(run("search", "index", QUESTION, "--json"))
    expect("search", hits[0][0] == "1", hits)
    output = run("recall", "index", "--dataset", "questions.jsonl", "--json")
    expect("recall", bool(json.loads(output)), output)
    reports = json.loads(run("score", "predictions.jsonl", "--json"))
    expect("score", '"em": {"value": 1.0' in json.dumps(reports), reports)
    found = serve_once(r1s, folder)
    expect("serve", found["result"][0][0]["document"]["id"] == "1", found)


def write(file: Path, rows: Sequence[Mapping[str, object]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def serve_once(r1s: Path, folder: Path) -> Any:
    """The response of `r1s serve` to one request in Search-R1's protocol."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    command = [str(r1s), "serve", "index", "--port", url.rpartition(":")[2], "--workers", "1"]
    server = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, start_new_session=True)
    try:
        give_up = time.monotonic() + DEADLINE
        while True:
            try:
                urllib.request.urlopen(f"{url}/health", timeout=DEADLINE).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > give_up:
                    sys.exit("r1s serve did not start")
                time.sleep(0.1)
        body = json.dumps({"queries": [QUESTION], "topk": 1, "return_scores": True}).encode()
        request = urllib.request.Request(f"{url}/retrieve", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=DEADLINE) as response:
            return json.load(response)
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()


ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: scripts/smoke.py R1S")
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(sys.argv[1]).absolute(), Path(temporary))
