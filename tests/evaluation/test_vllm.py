"""The same model in process, by a server's URL, as a run, and again: one at a time, the same greedy tokens."""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.training,
    pytest.mark.skipif(not importlib.util.find_spec("vllm"), reason="no vLLM: scripts/install-training cpu brings it"),
]

LIMITS = ["episode.max_new_tokens=24", "episode.max_context=256", "episode.max_searches=2", 'model.prompt="bare"']
OTHERS = ["model.chat_template=false", 'engine.precision="fp32"']  # bf16 makes ties of an untrained model's logits
SETTINGS = [item for limit in [*LIMITS, *OTHERS] for item in ("--set", limit)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.engine.toy import make_model

    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from r1searcher.engine.cpu import ENVIRONMENT

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (tmp_path_factory.mktemp("server") / "log.txt").open("w+")
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager"]
    command += ["--max-model-len", "256", "--max-num-seqs", "4"]
    # As many threads as a model in process takes: how a sum is split among threads decides its last bits.
    threads = {"OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
    process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **ENVIRONMENT, **threads})
    url = f"http://127.0.0.1:{port}"
    while True:
        if process.poll() is not None:
            log.seek(0)
            pytest.fail(f"the server ended: {log.read()[-2000:]}")
        try:
            urllib.request.urlopen(f"{url}/v1/models", timeout=5).read()
            break
        except OSError:
            time.sleep(0.5)
    yield url
    process.terminate()
    process.wait()


def episodes(model: str, questions: Path, index: Path, to: Path, *more: str) -> list[list[Any]]:
    """Author and token ids of every segment, as `r1s evaluate --concurrency 1` writes them."""
    command = [sys.executable, "-m", "r1searcher.cli", "evaluate", model, "--dataset", str(questions), "--to", str(to)]
    command += ["--concurrency", "1", "--retriever", str(index), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-4000:]
    rows = [json.loads(line) for line in (to / "predictions.jsonl").read_text().splitlines()]
    return [[(s["author"], s["token_ids"]) for s in row["segments"]] for row in rows]


def test_greedy_tokens_are_the_same_in_process_by_url_as_a_run_and_again(
    model: Path, server: str, questions: Path, index: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(model, run / "model")
    lines = [
        "[model]",
        'prompt = "bare"',
        "chat_template = false",
        "[engine]",
        'precision = "fp32"',
        "[episode]",
        "top_k = 5",
    ]
    lines += [limit.removeprefix("episode.") for limit in LIMITS if limit.startswith("episode.")]
    (run / "config.toml").write_text("\n".join(lines))
    in_process = episodes(str(model), questions, index, tmp_path / "a", *SETTINGS)
    assert len(in_process) == 6
    assert all(len(ids) > 0 for episode in in_process for _, ids in episode)
    assert episodes(server, questions, index, tmp_path / "b", *SETTINGS) == in_process
    # The server holds the prefixes of the first evaluation now. The second must not compute from them.
    assert episodes(server, questions, index, tmp_path / "c", *SETTINGS) == in_process
    assert episodes(str(run), questions, index, tmp_path / "d") == in_process
