"""vLLM as the episode loop's `TokenGenerator`."""

from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from typing import Any

from r1searcher.episodes.loop import FinishReason, Generation
from r1searcher.errors import R1Error


class VllmGenerator:
    """Continues token ids with an asynchronous vLLM engine.

    `generate` takes (token ids, vLLM SamplingParams) and returns vLLM's finished RequestOutput. `sampling` is the
    template: it is copied for every turn and never changed, because the caller shares it among episodes.
    """

    def __init__(self, generate: Callable[[list[int], Any], Awaitable[Any]], sampling: Any) -> None:
        self._generate = generate
        self._sampling = copy(sampling)
        self._sampling.include_stop_str_in_output = True
        self._sampling.skip_special_tokens = False
        self._sampling.detokenize = True

    async def generate(self, token_ids: Sequence[int], max_new_tokens: int, stops: Sequence[str]) -> Generation:
        sampling = copy(self._sampling)
        # From the first turn on: a turn that continues after its query would be trained on unwanted text.
        sampling.stop = list(stops)
        sampling.max_tokens = max_new_tokens
        request = await self._generate(list(token_ids), sampling)
        return as_generation(request.outputs[0])


def as_generation(completion: Any) -> Generation:
    """vLLM's CompletionOutput as sampled ids, their log-probabilities and why it stopped."""
    token_ids = tuple(completion.token_ids)
    if completion.finish_reason == "length":
        finish = FinishReason.LENGTH
    elif completion.finish_reason == "stop":
        # vLLM reports the stop string that it found; the end-of-sequence token has none (None, or a token id).
        finish = FinishReason.STOP if isinstance(completion.stop_reason, str) else FinishReason.EOS
    else:
        raise R1Error(f"vLLM aborted a turn: finish_reason={completion.finish_reason!r}")
    logprobs = None
    if completion.logprobs is not None:
        logprobs = tuple(step[token].logprob for step, token in zip(completion.logprobs, token_ids, strict=True))
    return Generation(token_ids, finish, logprobs)
