"""No byte of an escape sequence from outside reaches a terminal, from any command: piped, and in a real terminal."""

import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from r1searcher.common import terminal
from r1searcher.common.files import append_row
from r1searcher.config.settings import Settings
from r1searcher.corpora.passage import Passage
from r1searcher.evaluation.predictions import from_text
from r1searcher.report.live import RunView
from r1searcher.retrieval.indexing.bm25 import build
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import add_heartbeat, to_row
from r1searcher.stages.prepare import manifest_of, write_run_metadata
from tests.evaluation.conftest import serve, tokenizer_folder  # noqa: F401  # fixtures

PAYLOAD = "\x1b[777m\x1b]777;x\x07\x9b777m\x9d777;y\x9c\x85\r\x08\u202e[bold]b[/nope] :smile:"
"""Escape sequences that nothing of ours would write, in both alphabets, and Rich's markup."""

NAME = "n\x1b[777m\x9b777m[bold][b]"
"""The same as a file's name."""


def environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE")}
    return {**kept, "TERM": "xterm-256color", "COLUMNS": "120"}


def piped(words: list[str], folder: Path) -> bytes:
    """Both streams of a command whose output is no terminal."""
    done = subprocess.run(
        [sys.executable, "-m", "r1searcher.cli", *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        cwd=folder, env=environment(), timeout=300,
    )  # fmt: skip
    return done.stdout


def in_terminal(words: list[str], folder: Path) -> bytes:
    """What a command writes to a pseudo-terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "r1searcher.cli", *words]
    child = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=environment())
    os.close(theirs)
    output, until = b"", time.monotonic() + 300
    while time.monotonic() < until:
        if select.select([ours], [], [], 0.5)[0]:
            try:
                block = os.read(ours, 1 << 16)
            except OSError:  # Linux's way to say that the other end is closed
                break
            output += block
        elif child.poll() is not None:
            break
    os.close(ours)
    assert child.wait(60) is not None
    return output


def shows_no_escape(output: bytes) -> None:
    """For a pipe: no ESC and no C1 at all."""
    text = output.decode()
    assert not {c for c in text if (ord(c) < 0x20 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0}, text
    assert "Traceback" not in text


def shows_no_escape_of_theirs(output: bytes) -> None:
    """For a terminal: Rich's own sequences are there, none from outside is."""
    text = output.decode()
    for theirs in ("\x1b[777", "\x1b]777", "\x07", "\u202e"):
        assert theirs not in text
    assert not {c for c in text if 0x7F <= ord(c) < 0xA0}, text
    assert "Traceback" not in text


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    rows = [{"id": f"1{PAYLOAD}", "title": f"Oslo {PAYLOAD}", "text": f"Oslo is in Norway {PAYLOAD}"}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    for name in ("corpus", NAME):
        (folder / f"{name}.jsonl").write_text(lines + f'"{PAYLOAD}"\n'.replace("\r", ""), "utf-8")
    build([Passage(row["id"], row["title"], row["text"]) for row in rows], folder / "index")
    build([Passage("1", "Oslo", "Oslo")], folder / f"index-{NAME.replace('/', '-')}")
    question = {"id": PAYLOAD, "question": f"Oslo {PAYLOAD}?", "answer": f"Norway {PAYLOAD}", "prediction": PAYLOAD}
    for name in ("predictions", NAME):
        (folder / f"{name}-p.jsonl").write_text(json.dumps(question) + "\n")
    (folder / "wrong.jsonl").write_text(json.dumps({PAYLOAD: PAYLOAD}) + "\n" + PAYLOAD + "\n")
    (folder / "wrong.toml").write_text(f"{json.dumps(PAYLOAD)[:20]} = 3\n", "utf-8")
    run = RunFolder(folder / f"run{NAME}")
    settings = Settings.model_validate({"name": "r"})
    run.path.mkdir()
    write_run_metadata(run, settings, {**manifest_of("stage1", settings), PAYLOAD: PAYLOAD})
    append_row(run.metrics, {"step": 1, "reward": 0.5, f"reward/{PAYLOAD}": 1.0})
    row = to_row(from_text(PAYLOAD, (PAYLOAD,), PAYLOAD), id=PAYLOAD, parts={PAYLOAD: 1.0})
    append_row(run.trajectories(1) / "a.jsonl", row)
    (folder / "queries.txt").write_text(f"Oslo {PAYLOAD}\nOslo\n", "utf-8")
    return folder


COMMANDS: dict[str, list[str]] = {
    "search": ["search", "index", "Oslo"],
    "search, nothing found": ["search", "index", f"zzz {PAYLOAD}"],
    "search by file": ["search", "index", "--queries", "queries.txt"],
    "search, JSON": ["search", "index", "--queries", "queries.txt", "--json"],
    "search, no index": ["search", PAYLOAD, "q"],
    "search, a server": ["search", f"http://{PAYLOAD}/retrieve", "q"],
    "recall": ["recall", "index", "--dataset", "predictions-p.jsonl"],
    "recall, several": [
        "recall",
        "index",
        f"index-{NAME.replace('/', '-')}",
        "--dataset",
        "predictions-p.jsonl",
        "--exhaustive",
        f"{NAME}.jsonl",
    ],
    "recall, wrong rows": ["recall", "index", "--dataset", "wrong.jsonl"],
    "serve, no index": ["serve", PAYLOAD],
    "score": ["score", f"{NAME}-p.jsonl"],
    "score, JSON": ["score", f"{NAME}-p.jsonl", "--json"],
    "score, wrong rows": ["score", "wrong.jsonl"],
    "score, missing": ["score", PAYLOAD],
    "compare": ["compare", f"{NAME}-p.jsonl", "predictions-p.jsonl"],
    "compare, JSON": ["compare", f"{NAME}-p.jsonl", "predictions-p.jsonl", "--json"],
    "report, no folder": ["report", PAYLOAD],
    "report, hostile run": ["report", f"run{NAME}"],
    "report, no such step": ["report", f"run{NAME}", "--step", "7"],
    "index-corpus": ["index-corpus", "corpus.jsonl", "--to", "made", "--overwrite"],
    "index-corpus, hostile target": ["index-corpus", "corpus.jsonl", "--to", f"to{NAME}", "--overwrite"],
    "index-corpus, wrong rows": ["index-corpus", "wrong.jsonl", "--to", "not-made", "--bad-rows", "0"],
    "index-corpus, missing": ["index-corpus", PAYLOAD, "--to", "not-made"],
    "evaluate, no dataset": ["evaluate", "http://127.0.0.1:9", "--dataset", PAYLOAD, "--retriever", "index"],
    "evaluate, no model": ["evaluate", PAYLOAD, "--dataset", "predictions-p.jsonl", "--retriever", "index"],
    "ask": ["ask", PAYLOAD, "--model", "http://127.0.0.1:9", "--retriever", PAYLOAD],
    "settings": ["stage1", "wrong.toml"],
    "--set": ["stage1", "--set", f"{PAYLOAD}={PAYLOAD}"],
    "--set, no value": ["train", "--set", PAYLOAD],
    "flags of a stage": ["stage2", "--model", PAYLOAD, "--data", PAYLOAD, "--retriever", PAYLOAD],
    "--from": ["stage2", "--from", PAYLOAD],
    "preset": ["sft", "--preset", PAYLOAD],
    "demo": ["demo", "--set", f"nothing={PAYLOAD}", "--output", "wrong.toml"],
    "init": ["init", f"nowhere/{PAYLOAD}"],
    "no such command": [PAYLOAD],
    "no such flag": ["score", f"--{PAYLOAD}"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_pipes_no_escape_sequence(name: str, world: Path) -> None:
    output = piped(COMMANDS[name], world)
    assert output
    shows_no_escape(output)


@pytest.mark.parametrize("name", ["search", "search by file", "score", "compare", "index-corpus", "no such command"])
def test_a_command_writes_none_of_theirs_to_a_terminal(name: str, world: Path) -> None:
    output = in_terminal(COMMANDS[name], world)
    assert output
    shows_no_escape_of_theirs(output)


@pytest.mark.parametrize("status", [200, 404, 500])
def test_a_servers_answer_is_shown_and_not_obeyed(status: int, world: Path, serve: Any) -> None:  # noqa: F811
    server = serve(lambda path, body: (status, {"error": PAYLOAD, "detail": [PAYLOAD], "result": PAYLOAD}))
    words = ["evaluate", server.url, "--dataset", "predictions-p.jsonl", "--retriever", "index", "--to", "report"]
    shows_no_escape(piped(["search", f"{server.url}/retrieve", "q"], world))
    shows_no_escape(piped([*words, "--set", "retrieval.retry_timeout_s=0.1"], world))


@pytest.fixture
def model(serve: Any, tokenizer_folder: Path) -> Any:  # noqa: F811
    """A completions server that searches, then answers, in escape sequences."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)

    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path.endswith("/models"):
            return 200, {"data": [{"id": "rule", "root": str(tokenizer_folder)}]}
        if "begin_of_documents" not in tokenizer.decode(body["prompt"]).partition("Oslo")[2]:
            text, stop = f" {PAYLOAD}<|begin_of_query|> Oslo <|end_of_query|>", "<|end_of_query|>"
        else:
            text, stop = f" {PAYLOAD}</think> <answer> {PAYLOAD} </answer>", "</answer>"
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return 200, {"choices": [{"token_ids": ids, "text": text, "finish_reason": "stop", "stop_reason": stop}]}

    return serve(answer)


@pytest.mark.parametrize("run", [piped, in_terminal])
def test_what_a_model_writes_is_shown_and_not_obeyed(run: Any, model: Any, world: Path, tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("{question}\n")
    settings = [
        "--retriever",
        "index",
        "--set",
        f"model.prompt={tmp_path}/prompt.txt",
        "--set",
        "model.chat_template=false",
    ]
    check = shows_no_escape if run is piped else shows_no_escape_of_theirs
    asked = run(["ask", f"Oslo {PAYLOAD}", "--model", model.url, *settings], world)
    assert b"777" in asked
    check(asked)
    dataset = f"{NAME}-p.jsonl"
    check(run(["evaluate", model.url, "--dataset", dataset, "--to", str(tmp_path / f"r{NAME}"), *settings], world))


def test_a_retrievers_error_with_brackets_does_not_end_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """C.1: what a heartbeat says was treated as markup if the output is not a terminal."""
    said = f"the search engine is down: NoSuchFileException[/usr/share/elasticsearch] {PAYLOAD}"
    run = RunFolder(tmp_path / "[bold]run[/nope]")
    with RunView(run, f"title [/nope] {PAYLOAD}", 4, 8, terminal.console(stderr=True, width=400)) as view:
        add_heartbeat(run, "a", said)
        append_row(run.metrics, {"step": 1, "reward": 0.5, "f1": None})
        append_row(
            run.trajectories(1) / "a.jsonl",
            {"question": PAYLOAD, "gold_answers": [], "stop": "answered", "segments": [], "searches": []},
        )
        view.refresh()
    shown = capsys.readouterr().err
    assert "NoSuchFileException[/usr/share/elasticsearch]" in shown
    assert "[bold]run[/nope]" in shown
    shows_no_escape(shown.encode())
