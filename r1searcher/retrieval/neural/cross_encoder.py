"""A cross-encoder: one forward pass reads query and passage together and gives a score."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from r1searcher.errors import InputError
from r1searcher.retrieval.neural.loading import forward_passes, import_torch, load, longest

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
        self._torch = import_torch("a cross-encoder", "rerank")
        self._tokenizer, loaded = load(
            model, "cross-encoder", "AutoModelForSequenceClassification", remote_code, partial(_check, model)
        )
        self._model = loaded.to(device).eval()
        self._device = device
        self._max_length = min(max_length, longest(self._tokenizer, loaded))
        self._batch_size = batch_size
        self.work = Work()

    def scores(self, pairs: Sequence[Pair]) -> list[float]:
        """One score per pair, in order."""
        if not pairs:
            return []
        queries, passages = zip(*pairs, strict=True)
        encoded = self._tokenizer(
            list(queries), list(passages), truncation="longest_first", max_length=self._max_length, padding=False
        )
        scores = [0.0] * len(pairs)
        for places, padded in forward_passes(self._tokenizer, encoded, self._batch_size, self._device):
            with self._torch.inference_mode():
                logits = self._model(**padded).logits.float()
            found = logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
            for place, score in zip(places, found.tolist(), strict=True):
                scores[place] = score
            self.work.passes += 1
            self.work.tokens += padded["input_ids"].numel()
            self.work.padding += padded["input_ids"].numel() - sum(len(encoded["input_ids"][place]) for place in places)
        return scores


def _check(model: str, config: Any) -> None:
    if config.num_labels not in (1, 2):
        raise InputError(f"{model} is not a cross-encoder: it has {config.num_labels} outputs, not 1 or 2")
