"""An LLM that decides whether an answer matches the gold answer (the paper's ACC_L), at any OpenAI-compatible URL."""

import asyncio
import hashlib
import json
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from r1searcher.common.chat import ChatServer, filled
from r1searcher.common.files import append_row
from r1searcher.common.http import Limits
from r1searcher.common.records import Record, read_records
from r1searcher.common.retry import RetryPolicy
from r1searcher.errors import ServiceError
from r1searcher.report.predictions import Prediction

KEY_VARIABLE = "R1S_JUDGE_KEY"
"""Environment variable with the endpoint's key; OPENAI_API_KEY is used if it is not set."""

_VERDICTS = {"true": True, "false": False, "yes": True, "no": False}


RETRIES = RetryPolicy(tries=4, deadline=120.0)


@dataclass(frozen=True, kw_only=True)
class JudgeRequest:
    """Which model judges: its name at the URL of a chat completions server."""

    url: str
    model: str


def judge_server(request: JudgeRequest, concurrency: int = 16) -> ChatServer:
    """The judge's server, with its key. Does not send anything yet.

    Raises `InputError` for a malformed URL and for a key that cannot be sent.
    """
    return ChatServer(
        request.url,
        request.model,
        what="the judge",
        variables=(KEY_VARIABLE, "OPENAI_API_KEY"),
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
        judge_server(request)
        self._request = request
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
        async with aclosing(judge_server(self._request)) as server:
            return await asyncio.gather(*(self._judged(server, prediction) for prediction in predictions))

    async def _judged(self, server: ChatServer, prediction: Prediction) -> Prediction:
        if not (prediction.answer or "").strip():
            return replace(prediction, judge=False, judge_failed=False)
        try:
            return replace(prediction, judge=await self._verdict(server, prediction), judge_failed=False)
        except ServiceError as error:
            self.failures.append(str(error))
            return replace(prediction, judge=None, judge_failed=True)

    async def _verdict(self, server: ChatServer, prediction: Prediction) -> bool:
        values = {
            "question": prediction.question,
            "gold_answers": json.dumps(list(prediction.gold_answers), ensure_ascii=False),
            "answer": json.dumps((prediction.answer or "").strip(), ensure_ascii=False),
        }
        text = filled(self._text, values)
        key = hashlib.sha256(f"{self.model}\n{text}".encode("utf-8", "surrogatepass")).hexdigest()
        if key in self._known:
            return self._known[key]
        if key not in self._asked:  # identical prompts share one request, even if it is in progress
            self._asked[key] = asyncio.create_task(self._ask(server, key, text))
        return await self._asked[key]

    async def _ask(self, server: ChatServer, key: str, text: str) -> bool:
        verdict = await RETRIES.acall(lambda: server.ask(text, _read_verdict, temperature=0, max_tokens=16))
        append_row(self._cache, {"key": key, "verdict": verdict})
        self._known[key] = verdict
        return verdict


def _read_verdict(said: str) -> bool:
    verdict = _VERDICTS.get(said.strip().strip(".*\"'").lower())
    if verdict is None:
        raise ValueError(f"the verdict must be True or False, not {said[:100]!r}")
    return verdict
