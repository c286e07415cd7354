"""The shape of a decoder-only model, from its `config.json` alone: how many parameters, and where."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from r1searcher.common.download import download
from r1searcher.common.files import cache_folder
from r1searcher.common.hub import hub_file
from r1searcher.common.records import Record, read_record
from r1searcher.episodes.tokens import may_be_on_hub
from r1searcher.errors import InputError, ServiceError
from r1searcher.models.demo import DEMO_MODEL, HUB_NAME

_MOST_BYTES = 1 << 20


class _Config(Record):
    """`config.json` of the Llama, Qwen, SmolLM, Mistral and Gemma families."""

    model_type: str
    num_hidden_layers: int = Field(ge=1, le=10_000)
    hidden_size: int = Field(ge=1, le=1 << 20)
    intermediate_size: int = Field(ge=1, le=1 << 24)
    num_attention_heads: int = Field(ge=1, le=1 << 16)
    num_key_value_heads: int | None = Field(None, ge=1, le=1 << 16)
    head_dim: int | None = Field(None, ge=1, le=1 << 16)
    vocab_size: int = Field(ge=1, le=1 << 24)
    tie_word_embeddings: bool | None = None


_FAMILIES = ("llama", "qwen2", "qwen3", "smollm3", "mistral", "gemma", "gemma2", "gemma3_text")
_BIASED = ("qwen2",)
_NORMED = ("qwen3", "gemma3_text")
"""Families with a bias on query, key and value, and those that normalize query and key per head."""

_FOUR_NORMS = ("gemma2", "gemma3_text")
"""Families that normalize after attention and feed-forward network too."""

_TIED = ("smollm3", "gemma", "gemma2", "gemma3_text")
"""Families whose head is the embedding matrix where `config.json` does not say, as transformers reads it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A model by its sizes. Memory is computed from these; no weights are read."""

    family: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool

    @property
    def parameters(self) -> int:
        head = 0 if self.tied else self.vocabulary * self.hidden
        return self.vocabulary * self.hidden + head + self.layers * self._layer + self.hidden

    @property
    def _layer(self) -> int:
        query, key_value = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = self.hidden * (2 * query + 2 * key_value)
        if self.family in _BIASED:
            attention += query + 2 * key_value
        if self.family in _NORMED:
            attention += 2 * self.head_dim
        norms = 4 if self.family in _FOUR_NORMS else 2
        return attention + 3 * self.hidden * self.intermediate + norms * self.hidden

    def adapter_parameters(self, rank: int, target_modules: Collection[str]) -> int:
        """Parameters of LoRA adapters of `rank` on the named linear layers, or on all of them if none is named.

        An adapter of a layer with `inputs` and `outputs` is a matrix (rank, inputs) and one (outputs, rank).
        """
        query, key_value = self.heads * self.head_dim, self.kv_heads * self.head_dim
        sizes = {
            "q_proj": self.hidden + query,
            "k_proj": self.hidden + key_value,
            "v_proj": self.hidden + key_value,
            "o_proj": query + self.hidden,
            "gate_proj": self.hidden + self.intermediate,
            "up_proj": self.hidden + self.intermediate,
            "down_proj": self.intermediate + self.hidden,
        }
        adapted = target_modules or sizes
        return self.layers * rank * sum(size for name, size in sizes.items() if name in adapted)

    @property
    def largest_module(self) -> int:
        """Parameters of the largest module, which ZeRO-3 gathers as a whole."""
        return max(self.vocabulary, self.intermediate) * self.hidden

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of key and value of one token, in bf16."""
        return 2 * 2 * self.layers * self.kv_heads * self.head_dim


def _known(layers: int, hidden: int, intermediate: int, heads: tuple[int, int], **more: object) -> _Config:
    config = {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
    }
    return _Config.model_validate({**config, **more})


_QWEN = {"model_type": "qwen2", "vocab_size": 151936, "tie_word_embeddings": True}
_SMOLLM2 = _known(30, 576, 1536, (9, 3), model_type="llama", vocab_size=49152, tie_word_embeddings=True)
_KNOWN = {
    DEMO_MODEL: _SMOLLM2,
    HUB_NAME.removesuffix("-Instruct"): _SMOLLM2,
    "Qwen/Qwen2.5-0.5B": _known(24, 896, 4864, (14, 2), **_QWEN),
    "Qwen/Qwen2.5-1.5B": _known(28, 1536, 8960, (12, 2), **_QWEN),
    "Qwen/Qwen2.5-3B": _known(36, 2048, 11008, (16, 2), **_QWEN),
    "Qwen/Qwen2.5-7B": _known(28, 3584, 18944, (28, 4), model_type="qwen2", vocab_size=152064),
    "meta-llama/Llama-3.1-8B": _known(32, 4096, 14336, (32, 8), model_type="llama", vocab_size=128256),
}
"""Shapes of the presets' models, so that a plan works without a network and without access to a gated model. From their
`config.json` on the hub; the `-Instruct` models have the same."""


def shape_of(model: str) -> ModelShape:
    """The shape of a folder, of a known model, or of one on the hub (its `config.json` alone is downloaded).

    Raises `InputError` for a model of an unknown family, and `ServiceError` where the hub does not answer.
    """
    if (Path(model) / "config.json").is_file():
        return _shape(_read(Path(model) / "config.json"), model)
    known = _KNOWN.get(model.removesuffix("-Instruct"))
    if known is not None:
        return _shape(known, model)
    if not model or not may_be_on_hub(model):
        raise InputError(f"model.path = {model!r} is not a model folder (config.json) and not a name on the hub")
    target = cache_folder("configs", *model.split("/")) / "config.json"
    if not target.is_file():
        try:
            download(hub_file(model, "config.json"), target, most=_MOST_BYTES)
        except ServiceError as error:
            raise ServiceError(f"{error}; give a folder with its config.json", transient=error.transient) from error
    return _shape(_read(target), model)


def _read(file: Path) -> _Config:
    return read_record(file, _Config, "use the config.json of the model")


def _shape(config: _Config, model: str) -> ModelShape:
    if config.model_type not in _FAMILIES:
        known = ", ".join(_FAMILIES)
        raise InputError(f"{model}: plans are made for {known}; its config.json says {json.dumps(config.model_type)}")
    return ModelShape(
        family=config.model_type,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads or config.num_attention_heads,
        head_dim=config.head_dim or config.hidden_size // config.num_attention_heads,
        vocabulary=config.vocab_size,
        tied=config.model_type in _TIED if config.tie_word_embeddings is None else config.tie_word_embeddings,
    )
