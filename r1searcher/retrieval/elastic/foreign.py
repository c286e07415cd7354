"""An index that somebody else filled, read and never written: its own mapping, its own ranking.

Each field of a document is text from outside: a missing one is empty, values of a list are joined, a number is
written out, and what is too long is cut.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, FiniteFloat, StrictStr

from r1searcher.common.files import parse_json, read_text
from r1searcher.common.terminal import visible
from r1searcher.corpora.passage import Passage, make_passage
from r1searcher.errors import InputError, RetrieverError
from r1searcher.retrieval.base import Health, Hit, NoLookupError
from r1searcher.retrieval.elastic.indexes import TEXT_TYPES, MappedField, State, fields_of, indexes, named_text_fields
from r1searcher.retrieval.elastic.search import Answers, ElasticIndex
from r1searcher.retrieval.elastic.server import Address, malformed, no_such_index, read

DOCUMENT_ID = "_id"
"""The id that the server itself gives to each document."""

PLACEHOLDER = "{query}"
"""The value in a template that the query replaces."""

MAX_TEXT = 100_000
"""Characters kept of a field: more than any model reads of a passage."""

_MAX_ID = 512  # the servers' limit for their own ids, in bytes
_OURS = frozenset({"size", "from", "_source"})


class _Hit(BaseModel):
    """`score` is null where a template sorts by something else. `source` is missing if the index does not keep it."""

    id: StrictStr = Field(alias="_id")
    score: FiniteFloat | None = Field(None, alias="_score")
    source: dict[str, Any] | None = Field(None, alias="_source")


class _Count(BaseModel):
    count: int


@dataclass(frozen=True, slots=True)
class Document:
    """How a document is read: the field with its id, and the fields of its text, a title first if there are several."""

    fields: tuple[str, ...]
    id: str = DOCUMENT_ID

    @property
    def source(self) -> list[str]:
        """The fields to ask for."""
        return [*self.fields, *([] if self.id == DOCUMENT_ID else [self.id])]

    def passage(self, id_: str, source: Mapping[str, Any]) -> Passage | None:
        """None for a document with nothing in these fields. Raises `ValueError` for one that is not text."""
        texts = [_text(source, field) for field in self.fields]
        if not any(texts):
            return None
        title = texts.pop(0) if len(texts) > 1 else ""
        return make_passage(self._id_of(id_, source), title, "\n".join(filter(None, texts)))

    def _id_of(self, id_: str, source: Mapping[str, Any]) -> str:
        if self.id == DOCUMENT_ID:
            return id_
        found = list(_values(source, self.id))
        if len(found) != 1 or isinstance(found[0], bool) or not isinstance(found[0], str | int) or found[0] == "":
            raise ValueError(f"its field {self.id} is not one text or whole number")
        return _clean(str(found[0]), _MAX_ID)


def _text(source: Mapping[str, Any], field: str) -> str:
    """The values of a field as one text."""
    parts = []
    for value in _values(source, field):
        if isinstance(value, Mapping):
            raise ValueError(f"its field {field} is an object, not text")
        if value is not None:
            parts.append(value if isinstance(value, str) else json.dumps(value))
    return _clean(" ".join(parts).strip(), MAX_TEXT)


def _values(source: Mapping[str, Any], field: str) -> Iterator[Any]:
    """The values of a field, whose name is written with dots or as objects in objects, each possibly a list."""
    waiting: list[tuple[Any, str]] = [(source, field)]
    while waiting:
        value, rest = waiting.pop()
        if isinstance(value, list):
            waiting += ((one, rest) for one in reversed(value))
        elif not rest:
            yield value
        elif isinstance(value, Mapping):
            inner = [key for key in value if rest == key or rest.startswith(f"{key}.")]
            waiting += ((value[key], rest[len(key) + 1 :]) for key in reversed(inner))


def _clean(text: str, longest: int) -> str:
    """Cut, and without lone surrogates, which are not UTF-8."""
    return text[:longest].encode("utf-8", "replace").decode()


@dataclass(frozen=True, slots=True)
class Template:
    """A search in the server's language, in which the query replaces each value `PLACEHOLDER`."""

    body: Mapping[str, Any]

    @classmethod
    def of_fields(cls, fields: Sequence[str]) -> "Template":
        """The search of templates that are not given."""
        return cls({"query": {"multi_match": {"query": PLACEHOLDER, "fields": list(fields)}}})

    @classmethod
    def from_file(cls, path: Path) -> "Template":
        """Raises `InputError` for a file that is no template, and `FileError` for one that cannot be read."""
        try:
            body = parse_json(read_text(path, "the template"))
        except ValueError as error:
            raise InputError(f"the template {path} is not JSON: {error}") from None
        if not isinstance(body, dict):
            raise InputError(f'the template {path} must be the body of a search: {{"query": {{…}}}}')
        if given := sorted(_OURS & body.keys()):
            raise InputError(f"the template {path} must not set {', '.join(given)}: r1searcher sets them")
        found = list(_strings(body))
        if PLACEHOLDER not in found:
            raise InputError(f'the template {path} needs the value "{PLACEHOLDER}" where the query belongs')
        if any(PLACEHOLDER in text for text in found if text != PLACEHOLDER):
            raise InputError(
                f'the template {path} has "{PLACEHOLDER}" inside a longer text: it must be the whole value'
            )
        return cls(body)

    def filled(self, query: str) -> dict[str, Any]:
        """The search of a query, which stays one string whatever it contains."""
        return {key: _filled(value, query) for key, value in self.body.items()}


def _filled(value: Any, query: str) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner, query) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, query) for inner in value]
    return query if value == PLACEHOLDER else value


def _strings(value: Any) -> Iterator[str]:
    """All strings of a JSON value; a key that contains the placeholder too, marked so that it is not a value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{key}:"
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
    elif isinstance(value, str):
        yield value


class ForeignIndex(ElasticIndex[_Hit]):
    """A retriever of any index or alias. Its scores are the server's, or 1/rank where a template sorts otherwise."""

    answers = Answers[_Hit]

    def __init__(self, address: Address, timeout_s: float, document: Document, template: Path | None) -> None:
        super().__init__(address, timeout_s)
        self._document = document
        self._is_default = template is None
        self._template = Template.from_file(template) if template else Template.of_fields(document.fields)
        self._checked = self._has_ids = False

    def _health(self) -> Health:
        ranking = _hash([state.ranking for state in self._states()])
        found = self._connection.request("GET", f"/{self._address.name}/_count")
        count = read(self._address, _Count, found).count
        asked = [self._document.fields, self._document.id, self._template.body]
        name = f"{self._address.server}/{self._address.name}, ranking not ours (mapping {ranking})"
        return Health(name, count, _hash([ranking, count, asked]))

    def _states(self) -> list[State]:
        """The indexes of the name. Raises `InputError` if they do not have our fields: the server would search them
        and find nothing."""
        found = indexes(self._connection, self._address, self._address.name)
        if not found:
            raise no_such_index(self._address)
        states = [found[name] for name in sorted(found)]
        mappings = [state.mappings for state in states]
        known = {name: field for one in mappings for name, field in fields_of(one).items()}
        where = f"{self._address.name} at {self._address.server}"
        for name in self._document.fields:
            if name not in known or known[name].type not in TEXT_TYPES:
                problem = f"holds {visible(known[name].type)}, not text" if name in known else "does not exist"
                raise InputError(
                    f"the field {name} of {where} {problem}; its fields with text: {named_text_fields(mappings)}."
                )
            if self._is_default and known[name].in_nested:
                raise InputError(
                    f"the field {name} of {where} is in nested objects: give a template with a nested query."
                )
        if self._document.id != DOCUMENT_ID and self._document.id not in known:
            raise InputError(
                f"the field {self._document.id} of {where}, for ids, does not exist: leave id out for _id."
            )
        if any(one.source.get("enabled") is False for one in mappings):
            raise InputError(f"{where} does not keep its documents (_source is off), so nothing can be shown.")
        self._has_ids = known.get(self._document.id) == MappedField("keyword")
        self._checked = True
        return states

    def _queries(self, texts: Sequence[str], top_k: int) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
        if not self._checked:
            self._states()
        ours = {"size": top_k, "_source": self._document.source}
        return {}, [{"track_total_hits": False, **self._template.filled(text), **ours} for text in texts]

    def _lookup(self, id_: str) -> Mapping[str, Any]:
        """By the server's own ids, or by a field that keeps a text as one term."""
        if not self._checked:
            self._states()
        if self._document.id == DOCUMENT_ID:
            query: Mapping[str, Any] = {"ids": {"values": [id_]}}
        elif self._has_ids:
            query = {"term": {self._document.id: id_}}
        else:
            raise NoLookupError
        return {"size": 1, "query": query, "_source": self._document.source}

    def _passages(self, hits: Sequence[_Hit]) -> list[Hit]:
        found = []
        for rank, hit in enumerate(hits, 1):
            if hit.source is None:
                raise malformed(self._address, "a hit has no _source")
            try:
                passage = self._document.passage(hit.id, hit.source)
            except ValueError as error:
                raise RetrieverError(f"{self._where(hit)} cannot be shown: {visible(str(error))}.") from None
            if passage is not None:
                found.append(Hit(passage, 1 / rank if hit.score is None else hit.score))
        if hits and not found:
            raise RetrieverError(f"{self._where(hits[0])} has nothing in {', '.join(self._document.fields)}.")
        return found

    def _where(self, hit: _Hit) -> str:
        return f"Document {visible(hit.id[:80])} of {self._address.name} at {self._address.server}"


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
