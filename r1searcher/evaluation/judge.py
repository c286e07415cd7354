"""An LLM that decides whether an answer matches the gold answer (the paper's ACC_L), at any OpenAI-compatible URL."""

import asyncio
import hashlib
import json
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, StrictStr

from r1searcher.common.files import append_row
from r1searcher.common.http import Client, Key, Limits
from r1searcher.common.records import Record, read_records
from r1searcher.common.retry import RetryPolicy
from r1searcher.errors import ServiceError
from r1searcher.evaluation.engines import endpoint
from r1searcher.report.predictions import Prediction

KEY_VARIABLE = "R1S_JUDGE_KEY"
"""Environment variable with the endpoint's key; OPENAI_API_KEY is used if it is not set."""

_VERDICTS = {"true": True, "false": False, "yes": True, "no": False}


class _Message(BaseModel):
    content: StrictStr


class _Choice(BaseModel):
    message: _Message


class _Chat(BaseModel):
    """The fields of a chat completion that a verdict needs."""

    choices: Annotated[list[_Choice], Field(min_length=1)]


RETRIES = RetryPolicy(tries=4, deadline=120.0)


@dataclass(frozen=True, kw_only=True)
class JudgeRequest:
    """Which model judges: its name at the URL of a chat completions server."""

    url: str
    model: str


def judge_client(url: str, concurrency: int = 16) -> Client:
    """The client of a judge, with its key. Does not send anything yet.

    Raises `InputError` for a malformed URL and for a key that cannot be sent.
    """
    return Client(
        url,
        "the judge",
        instead=f"set {KEY_VARIABLE}",
        key=Key.from_environment(KEY_VARIABLE, "OPENAI_API_KEY"),
        limits=Limits(total=120.0, size=1 << 20, connections=concurrency),
    )


class VerdictRow(Record):
    """A row of the cache: the request (model and prompt, hashed) and the verdict."""

    key: str
    verdict: bool


class Judge:
    """Requests verdicts and stores them in a JSONL `cache`, by model and full prompt.

    Failures are not stored: the next run requests them again. Raises `InputError` for a malformed URL and for a key
    that cannot be sent.
    """

    def __init__(self, request: JudgeRequest, cache: Path) -> None:
        judge_client(request.url)
        self._base = request.url
        self._url = endpoint(request.url, "chat/completions")
        self.model = request.model
        self._cache = cache
        self._text = (resources.files("r1searcher.evaluation") / "prompts" / "judge.txt").read_text("utf-8")
        self._known = {row.key: row.verdict for row in read_records(cache, VerdictRow)}
        self._asked: dict[str, asyncio.Task[bool]] = {}
        self.failures: list[str] = []

    def __call__(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """The predictions with verdicts. Missing answers are wrong without a request; failed requests are marked."""
        return asyncio.run(self.judged(predictions))

    async def judged(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """`judge` inside a running event loop."""
        self._asked.clear()  # tasks belong to the event loop that created them
        async with aclosing(judge_client(self._base)) as client:
            return await asyncio.gather(*(self._judged(client, prediction) for prediction in predictions))

    async def _judged(self, client: Client, prediction: Prediction) -> Prediction:
        if not (prediction.answer or "").strip():
            return replace(prediction, judge=False, judge_failed=False)
        try:
            return replace(prediction, judge=await self._verdict(client, prediction), judge_failed=False)
        except ServiceError as error:
            self.failures.append(str(error))
            return replace(prediction, judge=None, judge_failed=True)

    async def _verdict(self, client: Client, prediction: Prediction) -> bool:
        parts = {
            "{question}": prediction.question,
            "{gold_answers}": json.dumps(list(prediction.gold_answers), ensure_ascii=False),
            "{answer}": json.dumps((prediction.answer or "").strip(), ensure_ascii=False),
        }
        text = "".join(parts.get(piece, piece) for piece in _pieces(self._text, parts))
        key = hashlib.sha256(f"{self.model}\n{text}".encode("utf-8", "surrogatepass")).hexdigest()
        if key in self._known:
            return self._known[key]
        if key not in self._asked:  # identical prompts share one request, even if it is in progress
            self._asked[key] = asyncio.create_task(self._ask(client, key, text))
        return await self._asked[key]

    async def _ask(self, client: Client, key: str, text: str) -> bool:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": text}],
            "temperature": 0,
            "max_tokens": 16,
        }
        verdict = await RETRIES.acall(lambda: client.post(self._url, body, _read_verdict))
        append_row(self._cache, {"key": key, "verdict": verdict})
        self._known[key] = verdict
        return verdict


def _read_verdict(answer: Any) -> bool:
    said = _Chat.model_validate(answer).choices[0].message.content
    verdict = _VERDICTS.get(said.strip().strip(".*\"'").lower())
    if verdict is None:
        raise ValueError(f"the verdict must be True or False, not {said[:100]!r}")
    return verdict


def _pieces(text: str, names: dict[str, str]) -> list[str]:
    """The template split at its placeholders, so that inserted text is never treated as one."""
    pieces = [text]
    for name in names:
        pieces = [part for piece in pieces for part in _around(piece, name)]
    return pieces


def _around(piece: str, name: str) -> tuple[str, ...]:
    before, found, after = piece.partition(name)
    return (before, found, after) if found else (piece,)
