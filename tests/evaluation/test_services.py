"""Model servers, judges and search engines that redirect, echo keys and answer wrongly.

Each client runs against real servers on this machine; the second host is another address of it.
"""

import asyncio
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r1searcher.errors import InputError, R1Error, ServiceError
from r1searcher.evaluation import engines, judge
from r1searcher.evaluation.engines import CompletionsEngine, completions_client, open_completions
from r1searcher.evaluation.judge import Judge, JudgeRequest
from r1searcher.report.predictions import Prediction
from r1searcher.retrieval import open_retriever
from r1searcher.retrieval.base import hits_of
from r1searcher.retrieval.indexing.elasticsearch import check_target
from tests.common.servers import Behavior, Raw, answer, raw_server, redirect
from tests.common.test_http import echoes

SECRET = "sk-4f9a-2b7c+d1e8/QzXw=="
TRUE = answer(b'{"choices": [{"message": {"content": "True"}}]}')


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("R1S_JUDGE_KEY", "R1S_API_KEY", "R1S_ELASTICSEARCH_API_KEY"):
        monkeypatch.setenv(name, SECRET)
    for policy in (engines, judge):
        monkeypatch.setattr(policy, "RETRIES", engines.RetryPolicy(tries=3, first_pause=0.01))


class Tokenizer:
    """As much of one as a server's answers are checked with: the bytes."""

    all_special_ids: tuple[int, ...] = ()
    all_special_tokens: tuple[str, ...] = ()

    def __len__(self) -> int:
        return 256

    def get_added_vocab(self) -> dict[str, int]:
        return {}


def verdict(url: str, folder: Path) -> Prediction:
    ask = Judge(JudgeRequest(url=url, model="j"), folder / "judge.jsonl")
    (judged,) = ask([Prediction("k", "Where?", ("Oslo",), "Oslo")])
    if judged.judge_failed:
        raise ServiceError(ask.failures[0])
    return judged


def models(url: str, folder: Path) -> Any:
    return asyncio.run(open_completions(url))


def completion(url: str, folder: Path | None = None, max_new_tokens: int = 8) -> Any:
    async def run() -> Any:
        engine = CompletionsEngine(completions_client(url), url, "m", Tokenizer())
        try:
            return await engine.generator(0.0).generate([1, 2], max_new_tokens, ["</answer>"])
        finally:
            await engine.aclose()

    return asyncio.run(run())


def elastic_search(url: str, folder: Path) -> Any:
    async def run() -> Any:
        retriever = open_retriever(url.replace("http:", "es:") + "/index")
        try:
            return await hits_of(retriever, ["q"], 1)
        finally:
            await retriever.aclose()

    return asyncio.run(run())


def elastic_load(url: str, folder: Path) -> Any:
    check_target(url.replace("http:", "es:") + "/index", overwrite=False)


CLIENTS: list[Callable[[str, Path], Any]] = [verdict, models, completion, elastic_search, elastic_load]


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
@pytest.mark.parametrize("client", CLIENTS)
def test_no_key_goes_to_a_second_host(client: Callable[[str, Path], Any], status: int, tmp_path: Path) -> None:
    """Defect D.1: 0 requests there, and what it would say does not count."""
    with raw_server(TRUE, host="127.0.0.2") as second, raw_server(TRUE) as first:
        first.behave = redirect(status, f"{second.url}/v1/chat/completions?token=abc")
        with pytest.raises(R1Error) as raised:
            client(first.url, tmp_path)
    assert second.requests == []
    assert first.with_key(SECRET) == len(first.requests) == 1
    assert "abc" not in str(raised.value)
    assert "redirect" in str(raised.value)


@pytest.mark.parametrize("to", ["same host", "other port"])
@pytest.mark.parametrize("client", CLIENTS)
def test_no_redirect_is_followed_on_this_host_either(
    client: Callable[[str, Path], Any], to: str, tmp_path: Path
) -> None:
    with raw_server(TRUE) as second, raw_server(TRUE) as first:
        first.behave = redirect(307, "/elsewhere" if to == "same host" else second.url)
        with pytest.raises(R1Error):
            client(first.url, tmp_path)
    assert second.requests == []
    assert len(first.requests) == 1


@pytest.mark.parametrize("body", echoes(SECRET))
@pytest.mark.parametrize("client", CLIENTS)
def test_a_key_that_a_server_echoes_is_not_shown(
    client: Callable[[str, Path], Any], body: bytes, tmp_path: Path
) -> None:
    for status, content_type in (("401 No", "text/plain"), ("400 No", "application/json"), ("200 OK", "text/plain")):
        headers = (f"Content-Type: {content_type}", "X-Elastic-Product: Elasticsearch")
        with raw_server(answer(body, status, *headers)) as server, pytest.raises(R1Error) as raised:
            client(server.url, tmp_path)
        for start in range(len(SECRET) - 7):
            assert SECRET[start : start + 8] not in str(raised.value)


@pytest.mark.parametrize("key", ["sk-geheim\n", "sk-geheim\r\nX: 1", "sk-gehéim", "sk geheim"])
@pytest.mark.parametrize("client", CLIENTS)
def test_a_key_that_cannot_be_sent_is_refused_up_front(
    client: Callable[[str, Path], Any], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("R1S_JUDGE_KEY", "R1S_API_KEY", "R1S_ELASTICSEARCH_API_KEY"):
        monkeypatch.setenv(name, key)
    with raw_server(TRUE) as server, pytest.raises(InputError, match="cannot be sent") as raised:
        client(server.url, tmp_path)
    assert server.requests == []
    assert "geh" not in str(raised.value)


@pytest.mark.parametrize(
    ("client", "variable"),
    [
        (verdict, "R1S_JUDGE_KEY"),
        (models, "R1S_API_KEY"),
        (completion, "R1S_API_KEY"),
        (elastic_search, "R1S_ELASTICSEARCH_API_KEY"),
        (elastic_load, "R1S_ELASTICSEARCH_API_KEY"),
    ],
)
def test_user_and_password_in_a_url_are_refused(
    client: Callable[[str, Path], Any], variable: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"leave user and password out of the URL; set {variable}") as raised:
        client("http://me:geheim@127.0.0.1:9", tmp_path)
    assert "geheim" not in str(raised.value)


COMPLETIONS = [
    None,
    [],
    "x",
    {},
    {"choices": None},
    {"choices": []},
    {"choices": {}},
    {"choices": [None]},
    {"choices": ["x"]},
    {"choices": [{}]},
    *(
        {"choices": [{"token_ids": ids, "finish_reason": "stop", "stop_reason": None}]}
        for ids in ([], "12", {}, 3, [None], [1.5], ["1"], [True], [-1], [10**9], [2**64], [[1]], [1] * 9)
    ),
    *(
        {"choices": [{"token_ids": [1], "finish_reason": reason, "stop_reason": None}]}
        for reason in (None, 3, [], "abort", "content_filter", "")
    ),
    {"choices": [{"token_ids": [1], "finish_reason": "stop", "stop_reason": {}}]},
    {"choices": [{"token_ids": [1], "finish_reason": "stop", "stop_reason": 1.5}]},
]


@pytest.mark.parametrize("value", COMPLETIONS, ids=lambda value: json.dumps(value)[:60])
def test_a_completion_of_another_shape_is_one_sentence(value: object) -> None:
    with raw_server(answer(json.dumps(value).encode())) as server, pytest.raises(ServiceError) as raised:
        completion(server.url)
    assert "the model server http://127.0.0.1" in str(raised.value)
    assert "sent a response that does not follow its protocol: " in str(raised.value)
    assert str(raised.value).isprintable()
    assert len(server.requests) == 1, "it would answer the same again"


def test_a_good_completion_and_one_without_token_ids() -> None:
    choice = {
        "token_ids": [65, 66],
        "finish_reason": "stop",
        "stop_reason": "</answer>",
        "text": "AB",
        "logprobs": None,
    }
    with raw_server(answer(json.dumps({"choices": [choice]}).encode())) as server:
        assert completion(server.url) == engines.Generation((65, 66), engines.FinishReason.STOP)
        del choice["token_ids"]
        server.behave = answer(json.dumps({"choices": [choice]}).encode())
        with pytest.raises(InputError, match="does not return token ids"):
            completion(server.url)


@pytest.mark.parametrize(
    "value",
    [
        *(None, [], {}),
        *({"data": data} for data in (None, {}, [None], ["m"], [{}])),
        *({"data": [model]} for model in ({"id": 3}, {"id": None}, {"id": ""}, {"id": "m", "root": 3})),
    ],
    ids=str,
)
def test_models_of_another_shape_are_one_sentence(value: object, tmp_path: Path) -> None:
    with raw_server(answer(json.dumps(value).encode())) as server, pytest.raises(ServiceError) as raised:
        models(server.url, tmp_path)
    assert "sent a response that does not follow its protocol: " in str(raised.value)


def test_a_server_without_models_or_without_the_one_asked_for(tmp_path: Path) -> None:
    with raw_server(answer(b'{"data": []}')) as server, pytest.raises(InputError, match="does not serve a model"):
        models(server.url, tmp_path)
    with raw_server(answer(b'{"data": [{"id": "a"}]}')) as server, pytest.raises(InputError, match="serves a"):
        asyncio.run(open_completions(server.url, "b"))


@pytest.mark.parametrize(
    "value",
    [
        *(None, [], {}),
        *({"choices": choices} for choices in (None, [], {}, [None], [{}])),
        *({"choices": [{"message": message}]} for message in (None, "True", {}, {"content": None}, {"content": True})),
        *({"choices": [{"message": {"content": said}}]} for said in ("", "Maybe", "True or False", ["True"])),
    ],
    ids=str,
)
def test_a_judge_that_answers_otherwise_has_failed_and_is_not_remembered(value: object, tmp_path: Path) -> None:
    with raw_server(answer(json.dumps(value).encode())) as server:
        with pytest.raises(ServiceError, match="sent a response that does not follow its protocol"):
            verdict(server.url, tmp_path)
        assert len(server.requests) == 1
        server.behave = TRUE
        assert verdict(server.url, tmp_path).judge is True


def test_a_judge_is_asked_once_for_the_same_prompt(tmp_path: Path) -> None:
    with raw_server(TRUE) as server:
        ask = Judge(JudgeRequest(url=server.url, model="j"), tmp_path / "judge.jsonl")
        judged = ask([Prediction(str(n), "Where?", ("Oslo",), "Oslo") for n in range(50)])
    assert [prediction.judge for prediction in judged] == [True] * 50
    assert len(server.requests) == 1
    assert len((tmp_path / "judge.jsonl").read_text().splitlines()) == 1


def test_a_damaged_memory_of_verdicts_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "judge.jsonl").write_text('{"key": "a", "verdict": true}\n{"key": 3}\n')
    with pytest.raises(InputError, match="row 2 is damaged"):
        Judge(JudgeRequest(url="http://127.0.0.1:9", model="j"), tmp_path / "judge.jsonl")


@pytest.mark.parametrize("client", [verdict, completion])
def test_a_server_that_is_busy_is_asked_again_and_one_that_refuses_is_not(
    client: Callable[[str, Path], Any], tmp_path: Path
) -> None:
    def after_two(server: Raw, then: Behavior) -> Behavior:
        def behave(connection: socket.socket, request: bytes) -> None:
            (answer(b"later", "503 Busy") if len(server.requests) < 3 else then)(connection, request)

        return behave

    good = b'{"choices": [{"message": {"content": "True"}, "token_ids": [1], "finish_reason": "length"}]}'
    with raw_server(TRUE) as server:
        server.behave = after_two(server, answer(good))
        client(server.url, tmp_path)
        assert len(server.requests) == 3
        server.behave = answer(b"no", "404 No")
        (tmp_path / "judge.jsonl").unlink(missing_ok=True)
        with pytest.raises(ServiceError, match="status 404: no"):
            client(server.url, tmp_path)
        assert len(server.requests) == 4
