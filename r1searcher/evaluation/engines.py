"""Inference engines that play episodes: vLLM in this process (`engine.inference.LocalModel`) or a completions URL.

Token ids go in and token ids come out of both.
"""

import asyncio
import http.client
import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from r1searcher.episodes.loop import Finish, Generation, Generator
from r1searcher.episodes.protocol import STOPS
from r1searcher.episodes.tokens import HuggingFaceTokenizer, Tokenizer, load_tokenizer
from r1searcher.errors import InputError, R1Error


class InferenceEngine(Protocol):
    """A model ready to be sampled from."""

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def hf_tokenizer(self) -> Any:
        """The transformers tokenizer, for chat templates."""
        ...

    def generator(self, temperature: float, seed: int | None = None) -> Generator:
        """A generator for one episode. With a `seed` its turns are drawn the same way again."""
        ...


class CompletionsEngine:
    """An OpenAI-compatible completions server that takes and returns token ids (vLLM's does).

    `url` is the server's base ("http://127.0.0.1:8000" or with /v1). `tokenizer` must be the model's own. At a
    `concurrency` of 1 no turn reads the server's prefix cache, so that its tokens depend on its context alone.
    """

    def __init__(
        self,
        url: str,
        model: str,
        tokenizer: Any,
        key: str | None = None,
        concurrency: int = 64,
        timeout: float = 600.0,
    ) -> None:
        self._url = f"{base_url(url)}/completions"
        self._model = model
        self._key = key
        self._timeout = timeout
        self._repeatable = concurrency == 1
        self._threads = ThreadPoolExecutor(concurrency, "completions")  # each waits for one request of the server
        self.hf_tokenizer = tokenizer
        self.tokenizer = HuggingFaceTokenizer(tokenizer)

    def generator(self, temperature: float, seed: int | None = None) -> Generator:
        return _CompletionsGenerator(self, temperature, seed)

    async def complete(
        self, token_ids: Sequence[int], max_new_tokens: int, temperature: float, seed: int | None
    ) -> Generation:
        body = {
            "model": self._model,
            "prompt": list(token_ids),
            "max_tokens": max_new_tokens,
            "min_tokens": 1,
            "temperature": temperature,
            "seed": seed,
            "stop": list(STOPS),
            "include_stop_str_in_output": True,
            "skip_special_tokens": False,
            "return_token_ids": True,
            # A salt of its own gives a request no cached prefix. What is cached depends on earlier requests and on
            # timing, and a prefix from the cache changes the last bits of what is computed after it.
            **({"cache_salt": uuid.uuid4().hex} if self._repeatable else {}),
        }
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._threads, call_json, self._url, body, self._key, self._timeout)
        try:
            choice = answer["choices"][0]
            ids, reason, stop = choice.get("token_ids"), choice["finish_reason"], choice.get("stop_reason")
        except (KeyError, IndexError, TypeError) as error:
            raise R1Error(f"{self._url} did not answer like a completions server: {str(answer)[:200]}") from error
        if ids is None:
            raise InputError(f"{self._url} returns no token ids; serve the model with vLLM 0.10.2 or later")
        if reason not in ("stop", "length"):
            raise R1Error(f"{self._url} gave up on a turn: finish_reason={reason!r}")
        finish = Finish.LENGTH if reason == "length" else Finish.STOP if isinstance(stop, str) else Finish.END
        return Generation(tuple(ids), finish)


class _CompletionsGenerator:
    def __init__(self, engine: CompletionsEngine, temperature: float, seed: int | None) -> None:
        self._engine, self._temperature, self._seed = engine, temperature, seed

    async def generate(self, token_ids: Sequence[int], max_new_tokens: int) -> Generation:
        return await self._engine.complete(token_ids, max_new_tokens, self._temperature, self._seed)


def open_completions(
    url: str, model: str | None = None, tokenizer: str | None = None, key: str | None = None, concurrency: int = 64
) -> CompletionsEngine:
    """The engine behind `url`, which is asked for the model it serves and for where its tokenizer lies.

    Raises `R1Error` where the server is not there, `InputError` where it does not serve the model or its tokenizer
    can't be found.
    """
    served = call_json(f"{base_url(url)}/models", None, key, 30.0).get("data") or []
    names = [entry["id"] for entry in served]
    if model is None:
        if not names:
            raise InputError(f"{url} serves no model")
        model = names[0]
    elif names and model not in names:
        raise InputError(f"{url} does not serve {model!r}; it serves {', '.join(names)}")
    root = next((entry.get("root") for entry in served if entry["id"] == model), None)
    try:
        loaded = load_tokenizer(tokenizer or root or model)
    except InputError as error:
        raise InputError(f"{error}: name the model's folder with --tokenizer") from error
    return CompletionsEngine(url, model, loaded, key, concurrency)


def base_url(url: str) -> str:
    """The URL up to and with /v1.

    >>> base_url("http://127.0.0.1:8000/")
    'http://127.0.0.1:8000/v1'
    """
    url = url.rstrip("/").removesuffix("/completions").removesuffix("/chat")
    return url if url.endswith("/v1") else f"{url}/v1"


TRIES = 3


def call_json(url: str, body: Mapping[str, Any] | None, key: str | None, timeout: float) -> Any:
    """POST `body` as JSON, or GET without one; the answer's JSON.

    A lost connection and a server's own errors (5xx, 429) are tried again, up to `TRIES` times. Raises `R1Error` with
    what the server said.
    """
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    data = None if body is None else json.dumps(body).encode()
    for pause in (*range(1, TRIES), None):
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=timeout) as response:
                return json.loads(response.read())
        except urllib.error.HTTPError as error:
            if pause is None or (error.code < 500 and error.code != 429):
                said = error.read(500).decode("utf-8", "replace")
                raise R1Error(f"{url} answered {error.code}: {said}") from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            if pause is None:
                raise R1Error(f"{url} can't be reached: {error}") from error
        time.sleep(pause)
    raise AssertionError("the last try returns or raises")
