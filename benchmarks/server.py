"""`r1s serve` beside the shape of the reference servers: Flask's own server, one request at a time, the same index.

    python benchmarks/server.py --requests 10000 --clients 64      (pip install flask)
    python benchmarks/server.py --elasticsearch 127.0.0.1:9200     (a running server, which both then ask)

Both serve the embedded index of --passages passages, or the same index in Elasticsearch; each client sends one question
a request, as clients of the protocol do by default. Prints requests a second and errors of both, from one run.
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
    from r1searcher.retrieval.embedded import EmbeddedIndex

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
            wait_for(options.port + number)
            rates[name], errors = load(options.port + number, options.clients, requests)
        finally:
            process.terminate()
            process.wait(30)
        print(f"| {name} | {requests:,} | {rates[name]:,.0f} | {errors} |", flush=True)
    print(f"\nr1s serve / reference: {rates['r1s serve'] / rates['reference']:.1f}")


if __name__ == "__main__":
    main()
