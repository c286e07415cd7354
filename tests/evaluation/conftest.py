"""A small world to evaluate in: a real index, real questions, and a server whose model is a rule instead of weights."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from r1searcher.corpora.passage import Passage
from r1searcher.episodes.protocols.r1_searcher import R1_SEARCHER
from r1searcher.retrieval.indexing.bm25 import build

CAPITALS = {
    "Norway": "Oslo",
    "Peru": "Lima",
    "Ghana": "Accra",
    "Chile": "Santiago",
    "Latvia": "Riga",
    "Nepal": "Kathmandu",
}


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("index") / "capitals"
    build(
        [Passage(str(i), land, f"{city} is the capital of {land}.") for i, (land, city) in enumerate(CAPITALS.items())],
        path,
    )
    return path


@pytest.fixture(scope="session")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("questions") / "capitals.jsonl"
    rows = [
        {"id": f"q{i}", "question": f"What is the capital of {land}?", "golden_answers": [city]}
        for i, (land, city) in enumerate(CAPITALS.items())
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@dataclass
class Server:
    """An HTTP server on this machine; `answer` maps path and body to status and JSON. `calls` holds every body."""

    answer: Any
    url: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)


class Http(ThreadingHTTPServer):
    request_queue_size = 256  # many episodes knock at once


@pytest.fixture
def serve() -> Iterator[Any]:
    running = []

    def start(answer: Any) -> Server:
        server = Server(answer)

        class Handler(BaseHTTPRequestHandler):
            def reply(self, body: dict[str, Any]) -> None:
                status, value = server.answer(self.path.partition("?")[0], body)
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self) -> None:
                self.reply({})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.calls.append(body)
                self.reply(body)

            def log_message(self, *_: Any) -> None: ...

        http = Http(("127.0.0.1", 0), Handler)
        threading.Thread(target=http.serve_forever, daemon=True).start()
        running.append(http)
        server.url = f"http://127.0.0.1:{http.server_port}"
        return server

    yield start
    for http in running:
        http.shutdown()
        http.server_close()


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.episodes.conftest import byte_level_bpe

    folder = tmp_path_factory.mktemp("tokenizer")
    byte_level_bpe(reserved_tags=False)._tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def searcher(serve: Any, tokenizer_folder: Path) -> Server:
    """A completions server whose model searches for the question once and answers with the first word it found."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)

    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path.endswith("/models"):
            return 200, {"data": [{"id": "rule", "root": str(tokenizer_folder)}]}
        read = tokenizer.decode(body["prompt"])
        if R1_SEARCHER.tags.documents not in read.partition("Question: ")[2]:
            question = read.rpartition("Question: ")[2].partition("<think>")[0].strip()
            text = f" Let me see. <|begin_of_query|> {question} <|end_of_query|>"
        else:
            text = (
                f"Found. </think> <answer> {read.rpartition('(1)Title: ')[2].split(' Text: ')[1].split()[0]} </answer>"
            )
        assert body["stop"] == list(R1_SEARCHER.stop_strings)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        stop = next(s for s in R1_SEARCHER.stop_strings if text.endswith(s))
        return 200, {"choices": [{"token_ids": ids, "text": text, "finish_reason": "stop", "stop_reason": stop}]}

    return serve(answer)
