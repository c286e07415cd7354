"""A web chain is recorded by one evaluation and replayed by another: the same predictions, and no connection."""

import json
import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from r1searcher.common import terminal
from r1searcher.corpora.readers import read_passages
from r1searcher.episodes.loop import FinishReason, Generation
from r1searcher.episodes.protocols.r1_searcher import R1_SEARCHER
from r1searcher.errors import R1Error
from r1searcher.evaluation.evaluate import EvaluationRequest, evaluate
from tests.episodes.conftest import byte_level_bpe
from tests.retrieval.local_web import local_web
from tests.shared_data import DATA

pytest.importorskip("trafilatura", reason="needs the extra [web]")

QUIET = terminal.console(file=open(os.devnull, "w"))  # noqa: SIM115
QUESTIONS = 200
PASSAGES = 200


class Reader:
    """An engine whose model searches for the question, then for what it read, and answers with numbers of summaries."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.tokenizer = byte_level_bpe(reserved_tags=True)
        self.hf_tokenizer = self.tokenizer._tokenizer

    async def __aenter__(self) -> "Reader":
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def generator(self, temperature: float, seed: int | None = None) -> "Reader":
        return self

    async def generate(self, token_ids: Sequence[int], max_new_tokens: int, stops: Sequence[str]) -> Generation:
        context = self.tokenizer.decode(token_ids)
        found = context.split(R1_SEARCHER.tags.documents)[1:]
        if not found:
            text = R1_SEARCHER.write_query("I search.", context.partition("Question: ")[2].splitlines()[0])
        elif len(found) == 1:
            text = R1_SEARCHER.write_query("I search again.", " ".join(found[0].split()[2:8]))
        else:
            text = R1_SEARCHER.write_answer("I know.", " ".join(re.findall(r"\(summary (\d+)\)", context)))
        return Generation(tuple(self.tokenizer.encode(text)), FinishReason.STOP)


@contextmanager
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Everything that would open a connection or resolve a name fails, and is listed."""
    attempts: list[str] = []

    def refuse(name: str) -> Any:
        def refused(*arguments: Any, **_: Any) -> Any:
            attempts.append(f"{name} {arguments}")
            raise OSError(f"{name} in a replay")

        return refused

    with monkeypatch.context() as patch:
        for name in ("connect", "connect_ex", "sendto"):
            patch.setattr(socket.socket, name, refuse(name))
        for name in ("getaddrinfo", "gethostbyname"):
            patch.setattr(socket, name, refuse(name))
        yield attempts


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """About what the pages say: real titles with real answers."""
    passages = list(read_passages(DATA / "retrieval/passages.jsonl"))[:PASSAGES]
    rows = [
        {"id": f"q{n}", "question": f"What is known about {p.title}, number {n}?", "golden_answers": [p.title]}
        for n, p in enumerate(passages)
    ]
    assert len(rows) == QUESTIONS
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def request(folder: Path, questions: Path, name: str, retrieval: dict[str, Any], concurrency: int) -> EvaluationRequest:
    model = folder / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text("{}")
    (folder / "prompt.txt").write_text("Question: {question}\n")
    return EvaluationRequest(
        model=str(model),
        datasets=[str(questions)],
        to=folder / name,
        concurrency=concurrency,
        overrides={
            **{f"retrieval.{key}": value for key, value in retrieval.items()},
            "retrieval.retry_timeout_s": 5.0,
            "model.prompt": str(folder / "prompt.txt"),
            "model.chat_template": False,
            "episode.top_k": 3,
            "episode.max_context": 100_000,
        },
    )


def predictions(folder: Path) -> list[dict[str, Any]]:
    """The rows, without what is measured: seconds, and the spans with theirs."""
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text("utf-8").splitlines()]
    for row in rows:
        row.pop("seconds")
        for search in row["searches"]:
            search.pop("seconds")
            search.pop("spans")
    return rows


def test_a_recorded_web_chain_is_replayed_without_a_connection(
    questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERPER_API_KEY", "none")
    monkeypatch.setattr("r1searcher.engine.vllm.inference.LocalModel", Reader)
    file = str(tmp_path / "searches.sqlite")
    passages = list(read_passages(DATA / "retrieval/passages.jsonl"))[:PASSAGES]
    with local_web(passages, failures=0.01) as (web, address):
        table = web.settings(address, file)
        evaluate(request(tmp_path, questions, "recorded", table, 64), QUIET)
    recorded = predictions(tmp_path / "recorded")
    assert len(recorded) == QUESTIONS
    assert all(len(row["searches"]) == 2 for row in recorded)
    assert len({row["segments"][-1]["text"] for row in recorded}) > QUESTIONS / 2  # different answers
    assert sum(web.failed.values()) > 0
    asked = dict(web.requests)

    with no_network(monkeypatch) as attempts:
        evaluate(request(tmp_path, questions, "replayed", {**table, "mode": "replay"}, 1), QUIET)
        assert attempts == []
        with pytest.raises(R1Error):  # the chain itself, without its recording, would connect
            evaluate(request(tmp_path, questions, "not recorded", web.settings(address), 1), QUIET)
        assert attempts != []
    assert web.requests == asked
    assert predictions(tmp_path / "replayed") == recorded
