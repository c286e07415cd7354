"""The vectors of an index that `r1s index-corpus --dense` filled: searched by Elasticsearch's kNN."""

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from r1searcher.errors import InputError, RetrieverError
from r1searcher.retrieval.base import Health
from r1searcher.retrieval.elastic.indexes import VECTOR, Label
from r1searcher.retrieval.elastic.own import OwnIndex, body
from r1searcher.retrieval.elastic.server import Address
from r1searcher.retrieval.indexing.manifest import validated
from r1searcher.retrieval.neural.encoder import Encoder, EncoderSettings

LINKS, EXPANSION = 32, 256
"""Of the HNSW graph: links per passage and level, and passages that are compared when one is added."""

MAX_CANDIDATES = 10_000
"""Elasticsearch's limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorsLabel:
    """What the vectors of an index were made with: the encoder, a hash of its weights, and how they are stored."""

    encoder: EncoderSettings
    weights: str
    dimensions: Annotated[int, Field(ge=1, le=4096)]
    vectors: Literal["float32", "int8"]

    @property
    def field(self) -> Mapping[str, Any]:
        """The field in a mapping. Without options, their defaults would be those of the server's version."""
        kind = "hnsw" if self.vectors == "float32" else "int8_hnsw"
        return {
            "type": "dense_vector",
            "dims": self.dimensions,
            "index": True,
            "similarity": "cosine",
            "index_options": {"type": kind, "m": LINKS, "ef_construction": EXPANSION},
        }


class VectorIndex(OwnIndex):
    """A retriever of our own index by its vectors. The encoder is loaded by the first search."""

    def __init__(
        self, address: Address, timeout_s: float, candidates: int, device: str, trust_remote_code: bool
    ) -> None:
        super().__init__(address, timeout_s)
        self._candidates = candidates
        self._device = device
        self._trust_remote_code = trust_remote_code
        self._encoders: dict[str, Encoder] = {}
        self._one_at_a_time = threading.Lock()

    def _health(self) -> Health:
        health = super()._health()
        vectors = asdict(self._vectors_of(self._label()))
        vectors["encoder"]["model"] = ""  # the folder may be another one, the weights not
        parts = json.dumps([health.fingerprint, vectors, self._candidates], sort_keys=True)
        return Health(f"{health.name}, vectors", health.passages, hashlib.sha256(parts.encode()).hexdigest()[:12])

    def _vectors_of(self, label: Label) -> VectorsLabel:
        if label.vectors is None:
            raise InputError(
                f"{self._address.name} at {self._address.server} has no vectors: fill it with "
                "`r1s index-corpus … --dense MODEL`, or leave search = knn out."
            )
        return validated(VectorsLabel, label.vectors, f"{self._address.server}/{label.index}")

    def _encoder(self, label: Label) -> Encoder:
        if label.index not in self._encoders:
            vectors = self._vectors_of(label)
            encoder = Encoder(vectors.encoder, device=self._device, remote_code=self._trust_remote_code)
            if encoder.weights != vectors.weights:
                raise InputError(
                    f"{vectors.encoder.model} is not the model that {label.index} was made with: its weights are "
                    "others; restore them, or fill the index again with `r1s index-corpus`."
                )
            self._encoders[label.index] = encoder
        return self._encoders[label.index]

    def _queries(self, texts: Sequence[str], top_k: int) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
        lines = [" ".join(text.split()) for text in texts]
        try:
            with self._one_at_a_time:
                encoded = self._encoder(self._label()).queries([line for line in lines if line])
        except RuntimeError as error:
            raise RetrieverError(f"the encoder failed: {error}") from error
        vectors = iter(encoded.astype(float))
        asked = ({"knn": self._knn(next(vectors).tolist(), top_k)} if line else {"query": _NOTHING} for line in lines)
        return {}, [body(search, top_k) for search in asked]

    def _knn(self, vector: Sequence[float], top_k: int) -> Mapping[str, Any]:
        candidates = min(max(self._candidates, top_k), MAX_CANDIDATES)
        return {"field": VECTOR, "query_vector": vector, "k": top_k, "num_candidates": candidates}

    def _score(self, label: Label, value: float) -> float:
        """The cosine, which the server scales to 0…1."""
        return 2 * value - 1


_NOTHING: Mapping[str, Any] = {"match_none": {}}
