"""`pip install .` alone, in an otherwise empty environment: every command that the README promises exits with 0.

Real parts: the wheel, pip and its index, the installed command, a server. The model of the completions server
is a rule instead of weights. `make check-light` runs this.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.conftest import CAPITALS

pytestmark = pytest.mark.packaging

ROOT = Path(__file__).parents[2]
HANG = 1800
SEARCHING = "I look it up."
CHAT_TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


@dataclass(frozen=True)
class Light:
    """The environment's programs, and a folder with a corpus, questions and a tokenizer to work in."""

    programs: Path
    folder: Path
    model: str
    """URL of the completions server."""

    def start(self, *words: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [str(self.programs / "r1s"), *words], cwd=self.folder, env=clean_environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *words: str) -> str:
        """Standard output of a command that must exit with 0."""
        child = self.start(*words)
        out, err = child.communicate(timeout=HANG)
        assert child.returncode == 0, f"r1s {' '.join(words)} ended with {child.returncode}:\n{out}{err}"
        assert "Traceback" not in err
        return out


def clean_environment() -> dict[str, str]:
    """Without variables that could add packages of another environment."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bin` of a fresh environment with only the project's wheel installed."""
    folder = tmp_path_factory.mktemp("light")
    shutil.copytree(ROOT / "r1searcher", folder / "source/r1searcher")  # a build writes next to its sources
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    pip = [str(folder / "venv/bin/python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    for command in (
        [sys.executable, "-m", "venv", str(folder / "venv")],
        [*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(folder / "source")],
    ):
        call(command)
    (wheel,) = folder.glob("r1searcher-*.whl")
    call([*pip, "install", str(wheel)])
    call([*pip, "check"])
    return folder / "venv/bin"


def call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, env=clean_environment())
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"


@pytest.fixture(scope="module")
def light(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Light]:
    from tests.episodes.conftest import byte_level_bpe

    folder = tmp_path_factory.mktemp("work")
    rows(folder / "corpus.jsonl", [
        {"id": land, "title": land, "text": f"{city} is the capital of {land}."} for land, city in CAPITALS.items()
    ])  # fmt: skip
    rows(folder / "questions.jsonl", [
        {"id": land, "question": f"What is the capital of {land}?", "golden_answers": [city]}
        for land, city in CAPITALS.items()
    ])  # fmt: skip
    tokenizer = byte_level_bpe(reserved_tags=False)._tokenizer
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder / "tokenizer")
    with ThreadingHTTPServer(("127.0.0.1", 0), rule(tokenizer, folder / "tokenizer")) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        made = Light(programs, folder, f"http://127.0.0.1:{http.server_port}")
        made.run("index-corpus", "corpus.jsonl", "--to", "index")
        yield made
        http.shutdown()


def rows(file: Path, values: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(value) + "\n" for value in values), "utf-8")


def rule(tokenizer: Any, folder: Path) -> type[BaseHTTPRequestHandler]:
    """A completions server whose model searches once, then answers; it accepts and returns token ids, like vLLM's."""

    def complete(prompt: list[int]) -> dict[str, Any]:
        read = tokenizer.decode(prompt)
        land = re.findall(r"What is the capital of (\w+)\?", read)[-1]
        if SEARCHING in read:
            text, stop = f" Found.</think>\n\n<answer> {CAPITALS[land]} </answer>", "</answer>"
        else:
            stop = "<|end_of_query|>"
            text = f" {SEARCHING} <|begin_of_query|> capital of {land} {stop}"
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return {"choices": [{"token_ids": ids, "text": text, "finish_reason": "stop", "stop_reason": stop}]}

    class Handler(BaseHTTPRequestHandler):
        def reply(self, value: dict[str, Any]) -> None:
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self.reply({"data": [{"id": "rule", "root": str(folder)}]})

        def do_POST(self) -> None:
            self.reply(complete(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["prompt"]))

        def log_message(self, *_: Any) -> None: ...

    return Handler


def test_nothing_that_trains_was_installed(light: Light) -> None:
    code = "from importlib.util import find_spec; print(*filter(find_spec, ['torch', 'ray', 'vllm', 'openrlhf']))"
    done = subprocess.run(
        [str(light.programs / "python"), "-c", code], capture_output=True, text=True, check=True,
        env=clean_environment(),
    )  # fmt: skip
    assert done.stdout.split() == []


def test_search(light: Light) -> None:
    assert "Oslo is the capital of Norway." in light.run("search", "index", "capital of Norway")


def test_serve(light: Light) -> None:
    child = light.start("serve", "index", "--port", "0")
    assert child.stderr is not None
    said = ""
    while "/retrieve" not in said:
        said = child.stderr.readline()
        assert said, "the server ended before it answered"
    address = said.partition("/retrieve")[0]
    try:
        body = json.dumps({"queries": ["capital of Peru"], "topk": 1}).encode()
        request = urllib.request.Request(f"{address}/retrieve", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=HANG) as answer:
            assert "Lima" in json.dumps(json.load(answer))
    finally:
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=HANG)
    assert child.returncode == 0


def test_recall(light: Light) -> None:
    found = json.loads(light.run("recall", "index", "--dataset", "questions.jsonl", "--json"))
    assert found["at"]["1"]["recall"] == 1.0


def test_init(light: Light) -> None:
    light.run("init", "settings.toml")
    assert "[model]" in (light.folder / "settings.toml").read_text("utf-8")


def test_ask_by_url(light: Light) -> None:
    question = "What is the capital of Ghana?"
    assert light.run("ask", question, "--model", light.model, "--retriever", "index").strip() == "Accra"


def test_evaluate_by_url_then_score_and_compare(light: Light) -> None:
    for to in ("a", "b"):
        light.run("evaluate", light.model, "--dataset", "questions.jsonl", "--retriever", "index", "--to", to)
    report = json.loads((light.folder / "a/report.json").read_text("utf-8"))
    assert report["datasets"]["questions"]["em"]["value"] == 1.0
    assert "EM" in light.run("report", "a")
    assert "EM" in light.run("score", "a/predictions.jsonl")
    assert "EM" in light.run("compare", "a/predictions.jsonl", "b/predictions.jsonl")


def test_data_and_what_reads_runs(light: Light) -> None:
    """The episodes of an evaluation are those of a step of a run here."""
    light.run("evaluate", light.model, "--dataset", "questions.jsonl", "--retriever", "index", "--to", "read")
    episodes = light.folder / "runs/one/trajectories/step-000001/worker.jsonl"
    episodes.parent.mkdir(parents=True)
    shutil.copy(light.folder / "read/predictions.jsonl", episodes)
    (light.folder / "runs/one/manifest.json").write_text('{"stage": "stage2", "settings_sha256": "0"}')
    (light.folder / "runs/one/config.toml").write_text("")
    assert "6 traces of 6 questions" in light.run("data", "traces", "read", "--to", "traces.jsonl")
    assert "6 rows" in light.run("simulate", "prepare", "runs/one", "--to", "simulator.jsonl", "--no-balance")
    light.run("data", "split", "questions.jsonl", "--part", "few=2", "--part", "rest", "--to", "parts")
    light.run("data", "merge", "parts/few.jsonl", "parts/rest.jsonl", "--to", "merged.jsonl")
    assert len((light.folder / "merged.jsonl").read_text().splitlines()) == len(CAPITALS)
    assert "stage2" in light.run("runs")
    assert json.loads(light.run("rescore", "runs/one", "--recipe", "paper", "--json"))
    assert "Oslo" in light.run("show", "read", "--words", "Norway")
