"""An index that `r1s index-corpus` filled; it ranks and scores like the embedded index.

`retrieval/indexing/elasticsearch.py` fills it, `retrieval/elastic/indexes.py` describes its documents.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field, FiniteFloat, StrictStr

from r1searcher.retrieval.base import Health, Hit, NoLookupError
from r1searcher.retrieval.elastic.indexes import Label, Source, read_label
from r1searcher.retrieval.elastic.search import Answers, ElasticIndex
from r1searcher.retrieval.elastic.server import Address


class _Hit(BaseModel):
    """`sort` is the score, then the index in the corpus."""

    index: StrictStr = Field(alias="_index")
    source: Source = Field(alias="_source")
    sort: tuple[FiniteFloat, int]


class OwnIndex(ElasticIndex[_Hit]):
    """A retriever of our own index."""

    answers = Answers[_Hit]

    def __init__(self, address: Address, timeout_s: float) -> None:
        super().__init__(address, timeout_s)
        self._labels: dict[str, Label] = {}

    def _health(self) -> Health:
        manifest = self._reload().manifest
        return Health(f"{self._address.server}/{self._address.name}", manifest.passages, manifest.fingerprint)

    def _reload(self) -> Label:
        """The label of the index that the alias points to now."""
        label = read_label(self._connection, self._address)
        self._labels[label.index] = label
        return label

    def _label(self) -> Label:
        return next(reversed(self._labels.values()), None) or self._reload()

    def _queries(self, texts: Sequence[str], top_k: int) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
        label = self._label()
        return label.search_options, [body({"query": _query(label, text)}, top_k) for text in texts]

    def _lookup(self, id_: str) -> Mapping[str, Any]:
        if not self._label().has_ids:
            raise NoLookupError
        return body({"query": {"constant_score": {"filter": {"term": {"id": id_}}}}}, 1)

    def _passages(self, hits: Sequence[_Hit]) -> list[Hit]:
        found = []
        for hit in hits:
            label = self._labels.get(hit.index) or self._reload()  # the alias was moved in the meantime
            found.append(Hit(hit.source.passage, self._score(label, hit.sort[0])))
        return found

    def _score(self, label: Label, value: float) -> float:
        """A score of the server as the embedded index gives it."""
        return value / label.score_factor


def _query(label: Label, text: str) -> Mapping[str, Any]:
    weight = label.manifest.settings.title_weight
    if weight is None:
        return {"match": {"contents": text}}
    should = [{"match": {"title": {"query": text, "boost": weight}}}, {"match": {"text": text}}]
    return {"bool": {"should": should}}


def body(search: Mapping[str, Any], size: int) -> Mapping[str, Any]:
    return {
        **search,
        "size": size,
        "sort": [{"_score": "desc"}, {"ordinal": "asc"}],
        "_source": ["id", "title", "text"],
        "track_total_hits": False,
    }
