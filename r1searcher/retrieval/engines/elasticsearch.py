"""Elasticsearch as a retriever: settings. The retrievers are in `retrieval/elastic`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from urllib.parse import unquote

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from r1searcher.common.http import shown_url
from r1searcher.common.terminal import visible
from r1searcher.errors import InputError
from r1searcher.retrieval.base import EngineSettings, Retriever
from r1searcher.retrieval.batching import Batcher
from r1searcher.retrieval.elastic.server import CONNECTIONS, ELASTICSEARCH, Address


class ElasticSettings(EngineSettings):
    """An index of Elasticsearch or OpenSearch. `?fields=…&id=…&template=…` in its URL are the keys of these names."""

    keys_in_urls: ClassVar[tuple[str, ...]] = ("fields", "id", "template")

    fields: tuple[str, ...] = Field((), strict=False, max_length=32)
    """Of an index that `r1s` did not fill: the field of titles, then those of texts; or one of texts alone."""

    id: str = Field("_id", min_length=1)
    """Of such an index: the field of passage ids."""

    template: str = ""
    """Of such an index: JSON file with the body of a search, with `"{query}"` where the query belongs; without one, a
    `multi_match` over the fields."""

    timeout_s: float = Field(60.0, gt=0, le=86_400)
    """Time limit of one request, in seconds."""

    @model_validator(mode="before")
    @classmethod
    def keys_of_the_url(cls, table: Any) -> Any:
        """Raises `InputError` for a key that does not exist or is given twice."""
        if not isinstance(table, Mapping) or not isinstance(table.get("url"), str):
            return table
        url, mark, query = table["url"].partition("?")
        if not mark:
            return table
        found: dict[str, Any] = {}
        for name, _, value in (pair.partition("=") for pair in query.split("&")):
            if name not in cls.keys_in_urls:
                keys = ", ".join(cls.keys_in_urls)
                raise InputError(f"{shown_url(table['url'])}: after ? come {keys}, not {visible(name[:80])!r}")
            if name in found or name in table:
                raise InputError(f"{shown_url(table['url'])}: {name} is given twice")
            found[name] = unquote(value)
        if "fields" in found:
            found["fields"] = tuple(found["fields"].split(","))
        return {**table, **found, "url": url}

    @field_validator("fields", mode="after")
    @classmethod
    def names_of_fields(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not name or not name.isprintable() or "*" in name or len(name) > 512 or value.count(name) > 1:
                raise PydanticCustomError("fields", "must be different names of fields, without *")
        return value

    @model_validator(mode="after")
    def keys_of_foreign_indexes(self) -> Self:
        if not self.fields and self.model_fields_set & {"id", "template"}:
            raise PydanticCustomError("fields", "id and template need fields: the names of the fields with text")
        return self

    def absolute(self) -> Self:
        return self.model_copy(update={"template": os.path.abspath(self.template)}) if self.template else self

    def open(self) -> Retriever:
        address = Address.parse(self.url)
        if self.fields:
            from r1searcher.retrieval.elastic.foreign import Document, ForeignIndex

            template = Path(self.template) if self.template else None
            return Batcher(ForeignIndex(address, self.timeout_s, Document(self.fields, self.id), template), CONNECTIONS)
        from r1searcher.retrieval.elastic.own import OwnIndex

        return Batcher(OwnIndex(address, self.timeout_s), CONNECTIONS)


class Settings(ElasticSettings):
    """`es://host:9200/name` or `es+https://host:9200/name`, filled by `r1s index-corpus`; with
    `?fields=title,text` any other index, with `?search=knn` the vectors of one that was filled with `--dense`."""

    environment: ClassVar[tuple[str, ...]] = ELASTICSEARCH.environment
    keys_in_urls: ClassVar[tuple[str, ...]] = (*ElasticSettings.keys_in_urls, "search")

    kind: Literal["es"] = "es"

    search: Literal["bm25", "knn"] = "bm25"
    """bm25: by terms; knn: by the vectors of an index that was filled with `--dense`."""

    candidates: int = Field(128, ge=1, le=10_000)
    """For knn: passages of each shard's graph that are compared; with more, more of the nearest ones are found."""

    device: str = "cpu"
    """For knn: device of the encoder: cpu, cuda, cuda:1, …"""

    trust_remote_code: bool = False
    """For knn: run Python code that comes with the encoder. Leave this off unless you wrote or read that code."""

    @model_validator(mode="after")
    def vectors_are_ours(self) -> Self:
        if self.fields and self.search == "knn":
            raise PydanticCustomError("search", "knn searches an index of `r1s index-corpus`, which has no keys fields")
        return self

    def open(self) -> Retriever:
        if self.search == "bm25":
            return super().open()
        from r1searcher.retrieval.elastic.vectors import VectorIndex

        index = VectorIndex(
            Address.parse(self.url), self.timeout_s, self.candidates, self.device, self.trust_remote_code
        )
        return Batcher(index, CONNECTIONS)
