"""`r1s serve` beside the shape of the reference servers: Flask's own server, one request at a time, the same index.

    python benchmarks/server.py --requests 10000 --clients 64      (pip install flask)

Both serve the embedded index of --passages passages; each client sends one question a request, as clients of the
protocol do by default. Prints requests a second and errors of both, from one run.
"""

import argparse
import http.client
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from corpus import queries, write_corpus

REFERENCE = """
import sys
from pathlib import Path
from flask import Flask, jsonify, request
from r1searcher.retrieval.embedded import EmbeddedIndex

app = Flask("reference")
index = EmbeddedIndex(Path(sys.argv[1]))

@app.route("/queries", methods=["POST"])
def answer():
    asked = request.get_json()
    found = [[f"{hit.passage.id}\\tTitle: {hit.passage.title} Text: {hit.passage.text}"
              for hit in index.search_one(query, asked["k"])] for query in asked["queries"]]
    return jsonify({"queries": asked["queries"], "answers": found})

import logging
logging.getLogger("werkzeug").setLevel(logging.ERROR)
app.run("127.0.0.1", int(sys.argv[2]), threaded=False)
"""


def wait_for(port: int) -> None:
    for _ in range(600):
        try:
            ask(http.client.HTTPConnection("127.0.0.1", port, timeout=60), "ready")
            return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"no server on port {port}")


def ask(connection: http.client.HTTPConnection, query: str) -> int:
    body = json.dumps({"queries": [query], "k": 3})
    connection.request("POST", "/queries", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    found = json.loads(answer.read())
    return len(found["answers"]) if answer.status == 200 else -1


def load(port: int, clients: int, requests: int) -> tuple[float, int]:
    """Requests a second and errors."""
    asked = queries("questions")
    errors = [0] * clients

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        for turn in range(requests // clients):
            try:
                errors[number] += ask(connection, asked[(number * 31 + turn) % len(asked)]) != 1
            except (OSError, http.client.HTTPException, ValueError):
                errors[number] += 1
                connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (requests // clients * clients) / (time.perf_counter() - started), sum(errors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=20_000)
    parser.add_argument("--work", type=Path, default=Path("/tmp/r1s-bench"))
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--reference-requests", type=int, default=2_000, help="Fewer: it is slow.")
    parser.add_argument("--port", type=int, default=8123)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    corpus = options.work / f"corpus-{options.passages}.jsonl"
    index = options.work / f"r1searcher-{options.passages}"
    write_corpus(corpus, options.passages)
    if not index.exists():
        from r1searcher.corpora.readers import Corpus
        from r1searcher.retrieval.embedded import build

        build(Corpus(corpus), index)
    servers = {
        "reference": [sys.executable, "-c", REFERENCE, str(index), str(options.port)],
        "r1s serve": [sys.executable, "-m", "r1searcher.cli", "serve", str(index), "--port", str(options.port + 1)],
    }
    rates = {}
    print(f"{options.clients} clients, {options.passages:,} passages\n\n| server | requests | requests/s | errors |")
    print("|---|---|---|---|")
    for number, (name, command) in enumerate(servers.items()):
        requests = options.reference_requests if name == "reference" else options.requests
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for(options.port + number)
            rates[name], errors = load(options.port + number, options.clients, requests)
        finally:
            process.terminate()
            process.wait(30)
        print(f"| {name} | {requests:,} | {rates[name]:,.0f} | {errors} |", flush=True)
    print(f"\nr1s serve / reference: {rates['r1s serve'] / rates['reference']:.1f}")


if __name__ == "__main__":
    main()
