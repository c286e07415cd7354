"""`r1s serve` compared with a server like the reference ones: Flask, one request at a time, the same index.

    python benchmarks/server.py --requests 10000 --clients 64      (pip install flask)
    python benchmarks/server.py --elasticsearch 127.0.0.1:9200     (a running server, used by both)

Both serve the embedded index of --passages passages, or the same index in Elasticsearch; each client sends one question
per request, as clients of the protocol do by default. Prints requests per second and errors of both, from one run.
"""

import argparse
import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent))
from corpus import queries, write_corpus

REFERENCE = """
import sys
from pathlib import Path
from flask import Flask, jsonify, request

app = Flask("reference")
place = sys.argv[1]
if place.startswith("es://"):
    from elasticsearch import Elasticsearch

    server, _, name = place.removeprefix("es://").partition("/")
    client = Elasticsearch("http://" + server)

    def search(query, k):
        hits = client.search(index=name, query={"match": {"contents": query}}, size=k)["hits"]["hits"]
        return [hit["_source"] for hit in hits]
else:
    from r1searcher.retrieval.engines.bm25 import EmbeddedIndex

    index = EmbeddedIndex(Path(place))

    def search(query, k):
        found = [hit.passage for hit in index.search_one(query, k)]
        return [{"id": passage.id, "title": passage.title, "text": passage.text} for passage in found]

@app.route("/queries", methods=["POST"])
def answer():
    asked = request.get_json()
    found = [[f"{row['id']}\\tTitle: {row['title']} Text: {row['text']}" for row in search(query, asked["k"])]
             for query in asked["queries"]]
    return jsonify({"queries": asked["queries"], "answers": found})

import logging
logging.getLogger("werkzeug").setLevel(logging.ERROR)
app.run("127.0.0.1", int(sys.argv[2]), threaded=False)
"""


def wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(600):
        if process.poll() is not None:  # another process may respond at its port
            raise SystemExit(f"the server for port {port} has ended: is the port in use?")
        try:
            uvloop.run(client(port, [message("ready")], []))
            return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"no server on port {port}")


def message(query: str) -> bytes:
    body = json.dumps({"queries": [query], "k": 3}).encode()
    head = "POST /queries HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: "
    return f"{head}{len(body)}\r\n\r\n".encode() + body


class Client(asyncio.Protocol):
    """Sends messages in sequence, over one connection if the server keeps it open. The clients share two cores with the
    servers they measure, so they do only that: HTTP libraries take as much time as the servers."""

    def __init__(self, messages: Iterator[bytes], errors: list[str], done: asyncio.Future[None]) -> None:
        self.messages, self.errors, self.done = messages, errors, done
        self.waits = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.send()

    def send(self) -> None:
        self.received = b""
        sent = next(self.messages, None)
        self.waits = sent is not None
        if sent is None:
            self.transport.close()
            self.done.set_result(None)
        else:
            self.transport.write(sent)

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, _, body = self.received.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        if length is None or len(body) < int(length[1]):
            return
        self.waits = False
        if head.split(b" ", 2)[1] != b"200" or len(json.loads(body)["answers"]) != 1:
            self.errors.append(f"{self.received!r}")
        if head.startswith(b"HTTP/1.1") and b"close" not in head:
            self.send()
        else:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if self.waits:
            self.errors.append(f"disconnected: {error!r}")
        if not self.done.done():
            self.done.set_exception(ConnectionResetError())


async def client(port: int, messages: list[bytes], errors: list[str]) -> None:
    loop = asyncio.get_running_loop()
    left = iter(messages)
    while True:
        done = loop.create_future()
        await loop.create_connection(partial(Client, left, errors, done), "127.0.0.1", port)
        try:
            return await done
        except ConnectionResetError:
            pass


async def load(port: int, clients: int, requests: int) -> tuple[float, list[str]]:
    """Requests per second, and errors."""
    asked = [message(query) for query in queries("questions")]
    errors: list[str] = []
    turns = requests // clients
    started = time.perf_counter()
    await asyncio.gather(
        *(
            client(port, [asked[(number * 31 + turn) % len(asked)] for turn in range(turns)], errors)
            for number in range(clients)
        )
    )
    return turns * clients / (time.perf_counter() - started), errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=20_000)
    parser.add_argument("--work", type=Path, default=Path("/tmp/r1s-bench"))
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--reference-requests", type=int, default=2_000, help="Fewer: it is slow.")
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--elasticsearch", help="host:port of a running server.")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    corpus = options.work / f"corpus-{options.passages}.jsonl"
    index = str(options.work / f"r1searcher-{options.passages}")
    if options.elasticsearch:
        index = f"es://{options.elasticsearch}/bench-server-{options.passages}"
    write_corpus(corpus, options.passages)
    fill = ["index-corpus", str(corpus), "--to", index, "--overwrite"]
    subprocess.run([sys.executable, "-m", "r1searcher.cli", *fill], check=True, stderr=subprocess.DEVNULL)
    servers = {
        "reference": [sys.executable, "-c", REFERENCE, index, str(options.port)],
        "r1s serve": [sys.executable, "-m", "r1searcher.cli", "serve", index, "--port", str(options.port + 1)],
    }
    rates = {}
    print(f"{options.clients} clients, {options.passages:,} passages\n\n| server | requests | requests/s | errors |")
    print("|---|---|---|---|")
    for number, (name, command) in enumerate(servers.items()):
        requests = options.reference_requests if name == "reference" else options.requests
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for(options.port + number, process)
            rates[name], errors = uvloop.run(load(options.port + number, options.clients, requests))
        finally:
            process.terminate()
            process.wait(30)
        print(f"| {name} | {requests:,} | {rates[name]:,.0f} | {len(errors)} |", flush=True)
        print(*errors[:3], sep="\n", end="")
    print(f"\nr1s serve / reference: {rates['r1s serve'] / rates['reference']:.1f}")


if __name__ == "__main__":
    main()
