"""Bad input of every kind to every command: one sentence, exit code 1 or 2, nothing lost, and never the last resort.

The cases are in `bad_inputs.py`. They run in this process, through the command line's own entry point, because a
process each would take an hour; a sample of them runs as processes too.
"""

import asyncio
import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType

import pytest

from r1searcher import cli
from r1searcher.config.settings import load
from r1searcher.corpora.passage import Passage
from r1searcher.engine import process
from r1searcher.evaluation import evaluate
from r1searcher.retrieval.indexing.bm25 import build
from r1searcher.runs.folder import RunFolder
from r1searcher.stages import prepare
from tests.bad_inputs import EVALUATE, SERVED, cases, served_cases

CASES = {case.name: case for case in cases()}
SERVED_CASES = {name: (shape, words) for name, shape, words in served_cases()}
HANG = 20.0
"""Seconds after which a case counts as hanging."""

QUESTIONS = [
    {"id": f"q{n}", "question": f"Where is {town}?", "gold_answers": ["Norway"]}
    for n, town in enumerate(("Oslo", "Bergen"))
]
SETTINGS = """
[model]
path = "model"
prompt = "prompt.txt"
chat_template = false
[data]
train = "questions.jsonl"
traces = "traces.jsonl"
[retrieval]
url = "index"
retry_timeout_s = 0.1
[rl]
questions_per_step = 2
samples_per_question = 2
batch_size = 4
micro_batch_size = 2
steps = 2
[sft]
batch_size = 1
[engine]
device = "cpu"
"""


def jsonl(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small folder in which every command would work, apart from training: its engine's script ends at once."""
    folder = tmp_path_factory.mktemp("world")
    with contextlib.chdir(folder):
        make_world(folder)
    return folder


def make_world(folder: Path) -> None:
    passages = [Passage(str(n), town, f"{town} is in Norway.") for n, town in enumerate(("Oslo", "Bergen"))]
    (folder / "corpus.jsonl").write_text(jsonl(*({"id": p.id, "title": p.title, "text": p.text} for p in passages)))
    build(passages, Path("index"))
    (folder / "questions.jsonl").write_text(jsonl(*QUESTIONS))
    (folder / "traces.jsonl").write_text(jsonl({"segments": [["prompt", "q<think>"], ["model", "</think>"]]}))
    (folder / "predictions.jsonl").write_text(
        jsonl({"question": "Where is Oslo?", "answer": "Norway", "prediction": "x"})
    )
    (folder / "queries.txt").write_text("Oslo\n")
    (folder / "prompt.txt").write_text("{question}\n")
    (folder / "settings.toml").write_text(SETTINGS)
    make_model(folder / "model")
    make_runs(folder)
    make_evaluation(folder / "evaluation")


def make_model(folder: Path) -> None:
    """A tokenizer, and weights that nothing here opens."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    with contextlib.suppress(ImportError):
        from tests.episodes.conftest import byte_level_bpe

        byte_level_bpe(reserved_tags=True)._tokenizer.save_pretrained(folder)


def make_runs(folder: Path) -> None:
    run = RunFolder(Path("runs/run"))
    settings = load("stage1", Path("settings.toml"), overrides={"name": "run"})
    with contextlib.suppress(prepare.InputError):  # where the training packages are missing, no run can be prepared
        prepare.prepare_stage("stage1", settings, run)
    run.path.mkdir(parents=True, exist_ok=True)
    run.launch.write_text("#!/usr/bin/env bash\necho the engine was started\nexit 3\n")
    run.metrics.write_text(jsonl({"step": 1, "reward": 0.5}))
    run.trajectories(1).mkdir(parents=True)
    (run.trajectories(1) / "a.jsonl").write_text(jsonl({"question": "q"}))
    latest = run.checkpoints / "_actor" / "latest"
    latest.parent.mkdir(parents=True)
    latest.write_text("global_step1")
    done = RunFolder(Path("runs/done"))
    shutil.copytree("model", done.model)
    done.config.write_text("")
    done.summary.write_text(json.dumps({"stage": "stage1", "model": "runs/done/model"}))


def make_evaluation(folder: Path) -> None:
    """A finished evaluation of a server that is gone: all episodes are there."""
    request = evaluate.EvaluationRequest(
        model=EVALUATE[1],
        datasets=["questions.jsonl"],
        to=folder,
        overrides={"retrieval.url": "index", "retrieval.retry_timeout_s": 0.1},
    )
    request.folder.start(asyncio.run(evaluate.manifest_of(evaluate.plan_of(request))))
    rows = [
        {
            "dataset": "questions", "id": q["id"], "index": n, "sample": 0, "seconds": 1.0, "reward": 0.0, "parts": {},
            "question": q["question"], "gold_answers": q["gold_answers"], "stop": "answered", "searches": [],
            "segments": [{"author": author, "text": "a", "token_ids": [1]} for author in ("prompt", "model")],
        }
        for n, q in enumerate(QUESTIONS)
    ]  # fmt: skip
    (folder / "predictions.jsonl").write_text(jsonl(*rows))


def files_in(folder: Path) -> dict[str, bytes | str]:
    """Every file with its content, every link with its target, everything else by its kind."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file():
            found[name] = path.read_bytes()
        elif not path.is_dir():
            found[name] = "special"
    return found


class Hang(BaseException):
    """Nothing that code under test catches."""


@contextlib.contextmanager
def hang_guard() -> Iterator[None]:
    def hangs(_number: int, _frame: FrameType | None) -> None:
        raise Hang(f"still running after {HANG} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.setitimer(signal.ITIMER_REAL, HANG)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def r1s(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of a command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["r1s", *words])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    with hang_guard(), pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def check_output(code: int, out: str, err: str) -> None:
    assert code in (1, 2), (code, err)
    assert err.strip(), "no sentence"
    assert "Traceback" not in err + out
    assert "bug" not in err, err
    controls = {c for c in err + out if (ord(c) < 0x20 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0}
    assert not controls, err


@pytest.fixture
def copy(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the world to break, as the current folder."""
    folder = tmp_path / "copy"
    shutil.copytree(world, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("R1S_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(process, "subprocess", None)  # an engine that is started after all fails the test
    return folder


def test_there_are_at_least_600() -> None:
    assert len(CASES) + len(SERVED_CASES) >= 600


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_sentence_and_loses_nothing(
    name: str, copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = CASES[name]
    case.breaks(copy)
    before = files_in(copy)
    code = r1s(case.words, monkeypatch)
    shown = capsys.readouterr()
    check_output(code, shown.out, shown.err)
    after = files_in(copy)
    assert {path: after.get(path) for path in before} == before


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, dict[str, bytes]]]:
    """A server whose answer to everything is `answer["body"]`, with status 200."""
    answer = {"body": b""}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.do_GET()

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer["body"])))
            self.end_headers()
            self.wfile.write(answer["body"])

        def log_message(self, *_: object) -> None: ...

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}", answer
    http.shutdown()
    http.server_close()


@pytest.mark.parametrize("name", SERVED_CASES)
def test_a_servers_bad_answer_is_one_sentence(
    name: str,
    copy: Path,
    server: tuple[str, dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url, answer = server
    shape, words = SERVED_CASES[name]
    answer["body"] = SERVED[shape]
    before = files_in(copy)
    code = r1s(tuple(word.replace("{server}", url) for word in words), monkeypatch)
    shown = capsys.readouterr()
    check_output(code, shown.out, shown.err)
    assert files_in(copy) == before


SAMPLE = [name for number, name in enumerate(CASES) if number % 150 == 0]


@pytest.mark.parametrize("name", SAMPLE)
def test_a_process_ends_in_the_same_way(name: str, copy: Path) -> None:
    case = CASES[name]
    case.breaks(copy)
    command = [sys.executable, "-m", "r1searcher.cli", *case.words]
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=300)
    check_output(done.returncode, done.stdout.decode(), done.stderr.decode())
