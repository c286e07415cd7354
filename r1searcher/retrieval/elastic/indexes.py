"""The indexes of a name, as the server describes them.

The name in `es://host:9200/NAME` is an alias. Passages are loaded into a new index `NAME-000001`, and the alias is
moved to it, in one step, when the counts agree: a half-filled index is never searched. The index has its `Manifest` in
the mapping's `_meta`; an unfinished one has its progress there.

Documents: `_id` and `ordinal` are the index in the corpus, so that equal scores are in corpus order and nothing can be
indexed twice; `id`, `title` and `text` are the passage. An index with vectors has them in `vector`, and what they were
made with in `_meta`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field, RootModel, StrictStr

from r1searcher.common.terminal import visible
from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError
from r1searcher.retrieval.elastic.server import Address, Connection, no_such_index, read
from r1searcher.retrieval.indexing.manifest import Manifest

VECTOR = "vector"
"""The field of vectors, of length 1."""

META = "r1searcher"
"""Key of this software in a mapping's `_meta`."""

TEXT_TYPES = frozenset(
    {"text", "match_only_text", "search_as_you_type", "annotated_text", "keyword", "constant_keyword", "wildcard"}
)
_OPENSEARCH = 0x08000000
"""OpenSearch marks its version numbers with this bit, since they began again at 1."""
_OPENSEARCH_3 = 3_000_000
_NAMED = 20
"""Fields that an error names."""


class Source(BaseModel):
    id: StrictStr
    title: StrictStr
    text: StrictStr

    @property
    def passage(self) -> Passage:
        return Passage(self.id, self.title, self.text)


class Mappings(BaseModel):
    meta: dict[str, Any] = Field({}, alias="_meta")
    source: dict[str, Any] = Field({}, alias="_source")
    properties: dict[str, Any] = {}


class _Version(BaseModel):
    created: int = 0


class IndexSettings(BaseModel):
    number_of_shards: int
    version: _Version = _Version()
    analysis: dict[str, Any] = {}
    similarity: dict[str, Any] = {}


class _AllSettings(BaseModel):
    index: IndexSettings


class State(BaseModel):
    """An index as the server describes it."""

    aliases: dict[str, Any]
    mappings: Mappings
    settings: _AllSettings

    @property
    def ours(self) -> Mapping[str, Any] | None:
        """What this package wrote into the mapping; None for an index from elsewhere."""
        meta = self.mappings.meta.get(META)
        return meta if isinstance(meta, Mapping) else None

    @property
    def ranking(self) -> Mapping[str, Any]:
        """All of it that a ranking depends on, except the documents."""
        settings = self.settings.index
        return {
            "fields": self.mappings.properties,
            **settings.model_dump(include={"analysis", "similarity", "number_of_shards"}),
        }

    def score_factor(self, k1: float) -> float:
        """What this index's BM25 scores are multiplied by, compared with Lucene's: k1 + 1 in Elasticsearch, and in
        OpenSearch before 3.0."""
        created = self.settings.index.version.created
        is_lucene = bool(created & _OPENSEARCH) and created ^ _OPENSEARCH >= _OPENSEARCH_3
        return 1.0 if is_lucene else k1 + 1


class States(RootModel[dict[str, State]]):
    """Indexes by name."""


@dataclass(frozen=True, slots=True)
class Label:
    """The manifest of a finished index, with what determines how to query it: its number of shards, whether a passage
    can be looked up by its id, and what its vectors were made with, None without vectors."""

    index: str
    manifest: Manifest
    shards: int
    score_factor: float
    has_ids: bool
    vectors: Any = None

    @property
    def search_options(self) -> Mapping[str, Any]:
        """More than one shard must be scored with the statistics of all."""
        return {"search_type": "dfs_query_then_fetch"} if self.shards > 1 else {}


@dataclass(frozen=True, slots=True)
class MappedField:
    """A field of a mapping. Queries find a field in a nested object only if they say so."""

    type: str
    in_nested: bool = False


def fields_of(mappings: Mappings) -> dict[str, MappedField]:
    """The fields by their dotted names, without those that are only another index of the same text."""
    found: dict[str, MappedField] = {}
    objects: list[tuple[str, Any, bool]] = [("", mappings.properties, False)]
    while objects:
        prefix, properties, nested = objects.pop()
        for name, field in properties.items() if isinstance(properties, Mapping) else ():
            if isinstance(field, Mapping):
                kind = field.get("type", "object")
                found[prefix + name] = MappedField(str(kind), nested)
                objects.append((f"{prefix}{name}.", field.get("properties"), nested or kind == "nested"))
    return found


def named_text_fields(mappings: Sequence[Mappings]) -> str:
    """The fields with text, for errors."""
    names = sorted({name for one in mappings for name, field in fields_of(one).items() if field.type in TEXT_TYPES})
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return visible(", ".join(names[:_NAMED])) + more if names else "none"


def indexes(connection: Connection, address: Address, pattern: str, **params: str) -> dict[str, State]:
    """Indexes of that name, alias or pattern; empty if there are none."""
    return read(address, States, connection.request("GET", f"/{pattern}", missing=True, **params)).root


def read_label(connection: Connection, address: Address) -> Label:
    found = indexes(connection, address, address.name)
    if not found:
        if unfinished(connection, address):
            raise InputError(
                f"{address.name} at {address.server} is not finished: run the command that started it again to resume."
            )
        raise no_such_index(address)
    (index, state), *others = found.items()
    manifest = (state.ours or {}).get("manifest")
    if others or not isinstance(manifest, Mapping):
        raise InputError(
            f"{address.name} at {address.server} is not from `r1s index-corpus`: to search it as it is, add "
            f"?fields=TITLE,TEXT to its URL (its fields with text: "
            f"{named_text_fields([one.mappings for one in found.values()])})."
        )
    read_manifest = Manifest.from_json(manifest, f"{address.server}/{index}")
    return Label(
        index,
        read_manifest,
        state.settings.index.number_of_shards,
        state.score_factor(read_manifest.settings.k1),
        _is_searchable(state.mappings.properties.get("id")),
        (state.ours or {}).get("vectors"),
    )


def _is_searchable(field: Any) -> bool:
    return isinstance(field, Mapping) and field.get("index", True) is True


def generations(connection: Connection, address: Address) -> dict[str, State]:
    """Our indexes under a name, oldest first."""
    found = indexes(connection, address, f"{address.name}-*", expand_wildcards="all")
    return {
        index: state
        for index, state in sorted(found.items())
        if re.fullmatch(re.escape(address.name) + r"-\d{6}", index) and state.ours is not None
    }


def unfinished(connection: Connection, address: Address) -> dict[str, Mapping[str, Any]]:
    """Those that the name does not point to, with their progress."""
    return {
        index: state.ours or {}
        for index, state in generations(connection, address).items()
        if address.name not in state.aliases
    }
