"""An LLM that says whether an answer means the gold answer (the paper's ACC_L), behind any OpenAI-compatible URL."""

import asyncio
import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import resources
from pathlib import Path

from r1searcher.common.files import append_row
from r1searcher.common.records import Record, read_records
from r1searcher.errors import R1Error
from r1searcher.evaluation.engines import base_url, call_json
from r1searcher.evaluation.predictions import Prediction

KEY_VARIABLE = "R1S_JUDGE_KEY"
"""Environment variable with the endpoint's key; OPENAI_API_KEY is taken where it is not set."""

_VERDICTS = {"true": True, "false": False, "yes": True, "no": False}


class VerdictRow(Record):
    """A row of the cache: what was asked (model and prompt, hashed) and the verdict."""

    key: str
    verdict: bool


class Judge:
    """Asks for verdicts and remembers them in a JSONL `cache`, by model and whole prompt.

    Failures are not remembered: the next run asks again.
    """

    def __init__(self, url: str, model: str, cache: Path, in_flight: int = 16, timeout: float = 120.0) -> None:
        self._url = f"{base_url(url)}/chat/completions"
        self.model = model
        self._cache = cache
        self._timeout = timeout
        self._in_flight = in_flight
        self._key = os.environ.get(KEY_VARIABLE) or os.environ.get("OPENAI_API_KEY")
        self._text = (resources.files("r1searcher.evaluation") / "prompts" / "judge.txt").read_text("utf-8")
        self._known = {row.key: row.verdict for row in read_records(cache, VerdictRow)}
        self.failures: list[str] = []

    def __call__(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """The predictions with verdicts. No answer is wrong without asking; a failed request is marked as failed."""
        with ThreadPoolExecutor(self._in_flight, "judge") as pool:
            return list(pool.map(self._judged, predictions))

    async def judged(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        return await asyncio.to_thread(self, predictions)

    def _judged(self, prediction: Prediction) -> Prediction:
        if not (prediction.answer or "").strip():
            return replace(prediction, judge=False, judge_failed=False)
        try:
            return replace(prediction, judge=self._verdict(prediction), judge_failed=False)
        except R1Error as error:
            self.failures.append(str(error))
            return replace(prediction, judge=None, judge_failed=True)

    def _verdict(self, prediction: Prediction) -> bool:
        parts = {
            "{question}": prediction.question,
            "{golds}": json.dumps(list(prediction.golds), ensure_ascii=False),
            "{answer}": json.dumps((prediction.answer or "").strip(), ensure_ascii=False),
        }
        text = "".join(parts.get(piece, piece) for piece in _pieces(self._text, parts))
        key = hashlib.sha256(f"{self.model}\n{text}".encode("utf-8", "surrogatepass")).hexdigest()
        if key not in self._known:
            body = {
                "model": self.model,
                "messages": [{"role": "user", "content": text}],
                "temperature": 0,
                "max_tokens": 16,
            }
            answer = call_json(self._url, body, self._key, self._timeout)
            try:
                said = str(answer["choices"][0]["message"]["content"])
            except (KeyError, IndexError, TypeError) as error:
                raise R1Error(f"{self._url} did not answer like a chat server: {str(answer)[:200]}") from error
            verdict = _VERDICTS.get(said.strip().strip(".*\"'").lower())
            if verdict is None:
                raise R1Error(f"the judge said neither True nor False: {said[:100]!r}")
            self._known[key] = verdict
            append_row(self._cache, {"key": key, "verdict": verdict})
        return self._known[key]


def _pieces(text: str, names: dict[str, str]) -> list[str]:
    """The template cut at its placeholders, so that nothing filled in is taken for one."""
    pieces = [text]
    for name in names:
        pieces = [part for piece in pieces for part in _around(piece, name)]
    return pieces


def _around(piece: str, name: str) -> tuple[str, ...]:
    before, found, after = piece.partition(name)
    return (before, found, after) if found else (piece,)
