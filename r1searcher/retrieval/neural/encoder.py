"""An encoder: one vector per text, of length 1, so that inner products are cosines."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from r1searcher.errors import InputError
from r1searcher.retrieval.neural.loading import forward_passes, import_torch, load, longest

Pooling = Literal["mean", "cls", "last"]
Vectors = npt.NDArray[np.float32]

_PREFIXES = {
    "none": ("", ""),
    "e5": ("query: ", "passage: "),
    "bge": ("Represent this sentence for searching relevant passages: ", ""),
}
"""The prefixes of queries and passages in the model cards of a family."""

_FAMILIES: tuple[tuple[str, Pooling, str], ...] = (
    ("multilingual-e5-large-instruct", "mean", "none"),
    ("e5-", "mean", "e5"),
    ("bge-m3", "cls", "none"),
    ("bge-", "cls", "bge"),
)
"""Part of a model's name, its pooling, and the family of its prefixes."""

_ENDS = 1 << 20
"""Bytes at both ends of a file of weights that identify it, together with its size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSettings:
    """How texts become vectors: a Hugging Face folder or name, and what its model card says about its use."""

    model: str
    pooling: Pooling
    query_prefix: str = ""
    passage_prefix: str = ""
    max_length: int = 512

    @property
    def prefixes(self) -> str:
        """The family whose prefixes these are (e5, bge), none, or other."""
        own = (self.query_prefix, self.passage_prefix)
        return next((name for name, prefixes in _PREFIXES.items() if prefixes == own), "other")

    @property
    def summary(self) -> str:
        """The settings in a line, for people."""
        prefixes = f"prefixes {self.prefixes}"
        if self.prefixes != "none":
            prefixes += f" ({self.query_prefix!r} for queries, {self.passage_prefix!r} for passages)"
        return f"{self.model}: pooling {self.pooling}, {prefixes}, at most {self.max_length} tokens"


def settings_for(
    model: str,
    pooling: Pooling | None = None,
    query_prefix: str | None = None,
    passage_prefix: str | None = None,
    max_length: int | None = None,
) -> EncoderSettings:
    """What is None comes from the model's files (for sentence-transformers), otherwise from its family (E5, BGE)."""
    own = _file(model, "1_Pooling/config.json")
    found: Pooling | None = None
    if own is not None:
        names: dict[str, Pooling] = {
            "pooling_mode_cls_token": "cls",
            "pooling_mode_mean_tokens": "mean",
            "pooling_mode_lasttoken": "last",
        }
        found = next((names[key] for key in names if own.get(key) is True), None)
    prompts = (_file(model, "config_sentence_transformers.json") or {}).get("prompts")
    prompts = prompts if isinstance(prompts, dict) else {}
    own_length = (_file(model, "sentence_bert_config.json") or {}).get("max_seq_length")
    name = Path(model).name.lower()
    family = next((family for family in _FAMILIES if family[0] in name), ("", "mean", "none"))
    prefixes = [
        given if given is not None else str(prompts.get(role) or usual)
        for given, role, usual in zip(
            (query_prefix, passage_prefix), ("query", "document"), _PREFIXES[family[2]], strict=True
        )
    ]
    return EncoderSettings(
        model=model,
        pooling=pooling or found or family[1],
        query_prefix=prefixes[0],
        passage_prefix=prefixes[1],
        max_length=max_length or (own_length if isinstance(own_length, int) and own_length > 0 else 512),
    )


class Encoder:
    """Raises `InputError` for a model that cannot be loaded, or files without some of its weights."""

    def __init__(
        self, settings: EncoderSettings, *, device: str = "cpu", batch_size: int = 64, remote_code: bool = False
    ) -> None:
        self._torch = import_torch("an encoder", "dense")
        # Poolers are not used, and many files leave theirs out.
        self._tokenizer, loaded = load(
            settings.model, "encoder", "AutoModel", remote_code, lambda config: None, ("pooler.",)
        )
        self._model = loaded.to(device).eval()
        self._device = device
        self._settings = settings
        self._max_length = min(settings.max_length, longest(self._tokenizer, loaded))
        self._batch_size = batch_size
        self.dimensions = int(loaded.config.hidden_size)
        self.weights = _weights(settings.model)

    def queries(self, texts: Sequence[str]) -> Vectors:
        """Shape (texts, dimensions)."""
        return self._encode([self._settings.query_prefix + text for text in texts])

    def passages(self, texts: Sequence[str]) -> Vectors:
        """Shape (texts, dimensions)."""
        return self._encode([self._settings.passage_prefix + text for text in texts])

    def _encode(self, texts: list[str]) -> Vectors:
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        if not texts:
            return vectors
        encoded = self._tokenizer(texts, truncation=True, max_length=self._max_length, padding=False)
        for places, padded in forward_passes(self._tokenizer, encoded, self._batch_size, self._device):
            with self._torch.inference_mode():
                states = self._model(**padded).last_hidden_state.float()
                pooled = self._pooled(states, padded["attention_mask"])
                vectors[places] = self._torch.nn.functional.normalize(pooled, dim=-1).cpu().numpy()
        return vectors

    def _pooled(self, states: Any, mask: Any) -> Any:
        """(rows, tokens, dimensions) -> (rows, dimensions); `mask` (rows, tokens) is 0 for padding, at either end."""
        if self._settings.pooling == "mean":
            weights = mask.unsqueeze(-1).to(states.dtype)
            return (states * weights).sum(1) / weights.sum(1)
        if self._settings.pooling == "cls":
            places = mask.argmax(1)
        else:
            places = (self._torch.arange(mask.shape[1], device=mask.device) * mask).argmax(1)
        return states[self._torch.arange(len(states), device=states.device), places]


def _file(model: str, name: str) -> dict[str, Any] | None:
    """A JSON file of a model, if it has one."""
    from transformers.utils import cached_file

    try:
        path = cached_file(
            model,
            name,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )
        value = json.loads(Path(path).read_text("utf-8")) if path else None
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _weights(model: str) -> str:
    """A hash that another model, or other weights of the same name, does not have: of each file's size and ends."""
    from transformers.utils import cached_file

    config = cached_file(model, "config.json")
    folder = Path(config or model).parent
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(_ENDS))
            file.seek(max(0, size - _ENDS))
            digest.update(file.read(_ENDS))
    if digest.digest() == hashlib.sha256().digest():
        raise InputError(f"{model} has no files of weights")
    return digest.hexdigest()[:16]
