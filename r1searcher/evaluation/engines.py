"""Inference engines that run episodes: vLLM in this process (`engine.vllm.inference.LocalModel`) or a completions URL.

Both take and return token ids.
"""

import asyncio
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from r1searcher.common.chat import endpoint
from r1searcher.common.http import Client, Key, Limits
from r1searcher.common.retry import RetryPolicy
from r1searcher.episodes.loop import FinishReason, Generation, TokenGenerator
from r1searcher.episodes.tokens import HuggingFaceTokenizer, Tokenizer, load_tokenizer
from r1searcher.errors import InputError

KEY_VARIABLE = "R1S_API_KEY"
"""Environment variable with the model server's key."""

_PADDING = 4096
"""Embedding rows beyond the tokenizer's vocabulary: models are padded, and may sample padding."""


class InferenceEngine(Protocol):
    """A model ready to be sampled from."""

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def hf_tokenizer(self) -> Any:
        """The transformers tokenizer, for chat templates."""
        ...

    def generator(self, temperature: float, seed: int | None = None) -> TokenGenerator:
        """A generator for one episode; a `seed` makes its samples reproducible."""
        ...


class _Choice(BaseModel):
    """A completion of vLLM's. `stop_reason` is the stop string, a stop token's id, or None at the end of sequence."""

    model_config = ConfigDict(strict=True)

    finish_reason: str
    stop_reason: str | int | None = None
    token_ids: list[Annotated[int, Field(ge=0)]] | None = None


class _Completion(BaseModel):
    choices: Annotated[list[_Choice], Field(min_length=1)]


class _Served(BaseModel):
    id: Annotated[str, Field(min_length=1)]
    root: str | None = None


class _Models(BaseModel):
    data: list[_Served]


RETRIES = RetryPolicy(tries=4, deadline=120.0)
"""A model server that is down for longer ends the evaluation; the same command resumes it."""


class CompletionsEngine:
    """An OpenAI-compatible completions server that takes and returns token ids (vLLM's does).

    `url` is the server's base ("http://127.0.0.1:8000" or with /v1). `tokenizer` must be the model's own. With
    `repeatable` no turn reads the server's prefix cache, so that its tokens depend only on its context. Raises
    `InputError` for a malformed URL.
    """

    def __init__(self, client: Client, url: str, model: str, tokenizer: Any, repeatable: bool = False) -> None:
        self._client = client
        self._url = endpoint(url, "completions")
        self._model = model
        self._repeatable = repeatable
        self.hf_tokenizer = tokenizer
        self.tokenizer = HuggingFaceTokenizer(tokenizer)
        self._tokens = len(tokenizer) + _PADDING

    async def aclose(self) -> None:
        await self._client.aclose()

    def generator(self, temperature: float, seed: int | None = None) -> TokenGenerator:
        return _CompletionsGenerator(self, temperature, seed)

    async def complete(
        self,
        token_ids: Sequence[int],
        max_new_tokens: int,
        stops: Sequence[str],
        temperature: float,
        seed: int | None,
    ) -> Generation:
        """One turn. Raises `ServiceError` for a server that is down or sends an invalid answer."""
        body = {
            "model": self._model,
            "prompt": list(token_ids),
            "max_tokens": max_new_tokens,
            "min_tokens": 1,
            "temperature": temperature,
            "seed": seed,
            "stop": list(stops),
            "include_stop_str_in_output": True,
            "skip_special_tokens": False,
            "return_token_ids": True,
            # A unique salt keeps the request from using cached prefixes. What is cached depends on earlier requests
            # and on timing, and a cached prefix changes the last bits of what is computed after it.
            **({"cache_salt": uuid.uuid4().hex} if self._repeatable else {}),
        }

        def read(answer: Any) -> _Choice:
            choice = _Completion.model_validate(answer).choices[0]
            if choice.token_ids is not None and not 1 <= len(choice.token_ids) <= max_new_tokens:
                raise ValueError(f"{len(choice.token_ids)} tokens instead of 1 to {max_new_tokens}")
            if beyond := [token for token in choice.token_ids or () if token >= self._tokens]:
                raise ValueError(f"token {beyond[0]} is not in the tokenizer's vocabulary")
            if choice.finish_reason not in ("stop", "length"):
                raise ValueError(f"a turn was aborted, finish_reason {choice.finish_reason[:80]!r}")
            return choice

        choice = await RETRIES.acall(lambda: self._client.post(self._url, body, read))
        if choice.token_ids is None:
            raise InputError(f"{self._client.shown} does not return token ids; use vLLM 0.10.2 or later")
        stopped_at_text = isinstance(choice.stop_reason, str)
        finish = (
            FinishReason.LENGTH
            if choice.finish_reason == "length"
            else FinishReason.STOP
            if stopped_at_text
            else FinishReason.EOS
        )
        return Generation(tuple(choice.token_ids), finish)


class _CompletionsGenerator:
    def __init__(self, engine: CompletionsEngine, temperature: float, seed: int | None) -> None:
        self._engine, self._temperature, self._seed = engine, temperature, seed

    async def generate(self, token_ids: Sequence[int], max_new_tokens: int, stops: Sequence[str]) -> Generation:
        return await self._engine.complete(token_ids, max_new_tokens, stops, self._temperature, self._seed)


def completions_client(url: str, concurrency: int = 64) -> Client:
    """The client of a model server, with the key of `KEY_VARIABLE`. Does not send anything yet.

    Raises `InputError` for a malformed URL and for a key that cannot be sent.
    """
    return Client(
        url,
        "the model server",
        instead=f"set {KEY_VARIABLE}",
        key=Key.from_environment(KEY_VARIABLE),
        limits=Limits(total=600.0, size=16 << 20, connections=concurrency),
    )


async def open_completions(
    url: str, model: str | None = None, tokenizer: str | None = None, concurrency: int = 64
) -> CompletionsEngine:
    """The engine of the server at `url`, which says which model it serves and where its tokenizer is.

    Raises `ServiceError` if the server does not answer, `InputError` if it does not serve the model or the tokenizer
    cannot be found.
    """
    client = completions_client(url, concurrency)
    try:
        served = await RETRIES.acall(lambda: client.get(endpoint(url, "models"), _Models.model_validate))
        chosen = _chosen(served.data, model, client.shown)
        source = tokenizer or chosen.root or chosen.id
        loaded = await asyncio.to_thread(_load_tokenizer, source)
        return CompletionsEngine(client, url, chosen.id, loaded, repeatable=concurrency == 1)
    except BaseException:
        await client.aclose()
        raise


def _chosen(served: Sequence[_Served], model: str | None, shown: str) -> _Served:
    if model is None:
        if not served:
            raise InputError(f"{shown} does not serve a model")
        return served[0]
    names = [entry.id for entry in served]
    if names and model not in names:
        raise InputError(f"{shown} does not serve {model!r}; it serves {', '.join(names[:20])[:300]}")
    return next((entry for entry in served if entry.id == model), _Served(id=model))


def _load_tokenizer(source: str) -> Any:
    try:
        return load_tokenizer(source)
    except InputError as error:
        raise InputError(f"{error}: name the model's folder with --tokenizer") from error
