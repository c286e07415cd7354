"""A cross-encoder: one forward pass reads query and passage together and gives a score."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from r1searcher.errors import InputError, RetrieverError

Pair = tuple[str, str]
"""Query and passage."""


@dataclass(slots=True)
class Work:
    """What a cross-encoder has done: forward passes, tokens in them, and how many of those were padding."""

    passes: int = 0
    tokens: int = 0
    padding: int = 0


class CrossEncoder:
    """A sequence classifier of transformers with one output, or two of which the second means "relevant".

    Raises `InputError` for a model that cannot be loaded or is something else.
    """

    def __init__(
        self, model: str, *, device: str = "cpu", max_length: int = 512, batch_size: int = 64, remote_code: bool = False
    ) -> None:
        try:
            import torch
        except ImportError as error:
            raise InputError("a cross-encoder needs torch: pip install 'r1searcher[rerank]'") from error
        self._torch = torch
        self._tokenizer, loaded = _loaded(model, remote_code)
        self._model = loaded.to(device).eval()
        self._device = device
        longest = getattr(loaded.config, "max_position_embeddings", max_length)
        self._max_length = min(max_length, longest)
        self._batch_size = batch_size
        self.work = Work()

    def scores(self, pairs: Sequence[Pair]) -> list[float]:
        """One score per pair, in order. Pairs of similar length share a forward pass, to have little padding."""
        if not pairs:
            return []
        queries, passages = zip(*pairs, strict=True)
        encoded = self._tokenizer(
            list(queries), list(passages), truncation="longest_first", max_length=self._max_length, padding=False
        )
        lengths = [len(ids) for ids in encoded["input_ids"]]
        order = sorted(range(len(pairs)), key=lambda place: lengths[place])
        scores = [0.0] * len(pairs)
        for start in range(0, len(order), self._batch_size):
            places = order[start : start + self._batch_size]
            rows = [{name: values[place] for name, values in encoded.items()} for place in places]
            padded = self._tokenizer.pad(rows, return_tensors="pt").to(self._device)
            with self._torch.inference_mode():
                logits = self._model(**padded).logits.float()
            found = logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
            for place, score in zip(places, found.tolist(), strict=True):
                scores[place] = score
            self.work.passes += 1
            self.work.tokens += padded["input_ids"].numel()
            self.work.padding += padded["input_ids"].numel() - sum(lengths[place] for place in places)
        return scores


def _loaded(model: str, remote_code: bool) -> tuple[Any, Any]:
    """Tokenizer and model, all of whose weights come from its files: a new head of random weights would rank too."""
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=remote_code)
        if config.num_labels not in (1, 2):
            raise InputError(f"{model} is not a cross-encoder: it has {config.num_labels} outputs, not 1 or 2")
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=remote_code)
        loaded, report = AutoModelForSequenceClassification.from_pretrained(
            model, trust_remote_code=remote_code, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InputError(f"the cross-encoder {model} cannot be loaded: {reason}") from error
    if missing := sorted(report["missing_keys"]):
        raise InputError(f"{model} is not a cross-encoder: its files have no {missing[0]}")
    return tokenizer, loaded


class SharedCrossEncoder:
    """Scores pairs of different episodes together: those that arrive during a forward pass wait for the next one."""

    def __init__(self, encoder: CrossEncoder) -> None:
        self._encoder = encoder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cross-encoder")
        self._waiting: list[tuple[Sequence[Pair], asyncio.Future[list[float]]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def scores(self, pairs: Sequence[Pair]) -> list[float]:
        """Raises `RetrieverError` if the model failed, for example for lack of memory."""
        future: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()
        self._waiting.append((pairs, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    async def aclose(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0)  # those of the same moment go together
        while self._waiting:
            batch, self._waiting = self._waiting, []
            together = [pair for pairs, _ in batch for pair in pairs]
            try:
                scores = await loop.run_in_executor(self._thread, self._encoder.scores, together)
            except Exception as error:
                failure = RetrieverError(f"the cross-encoder failed: {type(error).__name__}: {error}")
                for _, future in batch:
                    if not future.done():
                        future.set_exception(failure)
                continue
            start = 0
            for pairs, future in batch:
                if not future.done():
                    future.set_result(scores[start : start + len(pairs)])
                start += len(pairs)
