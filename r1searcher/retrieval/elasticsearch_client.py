"""The Elasticsearch code that engine and indexer share: address and keys, errors, and the indexes of a name.

The name in `es://host:9200/NAME` is an alias. Passages are loaded into a new index `NAME-000001`, and the alias is
moved to it, in one step, when the counts agree: a half-filled index is never searched. The index has its `Manifest` in
the mapping's `_meta`; an unfinished one has its progress there.

Documents: `_id` and `ordinal` are the index in the corpus, so that equal scores are in corpus order and nothing can be
indexed twice; `id`, `title` and `text` are the passage.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import elasticsearch
from elastic_transport import TlsError
from elasticsearch import ApiError, Elasticsearch, SerializationError, TransportError, UnsupportedProductError
from pydantic import BaseModel, Field, RootModel, StrictStr

from r1searcher.common.http import Key, first_problem, is_transient, redact, shown_url, split_url
from r1searcher.common.terminal import visible
from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError, R1Error, RetrieverError
from r1searcher.retrieval.indexing.manifest import Manifest

M = TypeVar("M", bound=BaseModel)

META = "r1searcher"
"""Key of this software in a mapping's `_meta`."""

CONNECTIONS = 16
"""Requests that are sent at the same time."""

_LONGEST_ERROR = 64 << 10
_KEY, _USER, _PASSWORD, _CA = (f"R1S_ELASTICSEARCH_{name}" for name in ("API_KEY", "USER", "PASSWORD", "CA"))
ENVIRONMENT = (_KEY, _USER, _PASSWORD, _CA)


@dataclass(frozen=True, slots=True)
class Address:
    """`es://host:9200/name`, or `es+https://…`."""

    server: str
    name: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises `InputError` with the expected form."""
        parts = split_url(url, "the index's URL", f"set {_KEY}, or {_USER} and {_PASSWORD}", schemes=("es", "es+https"))
        name = parts.path.strip("/")
        if not name:
            raise InputError(f"{shown_url(url)} does not name an index: write es://host:9200/name")
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,200}", name):
            raise InputError(f"{visible(name[:80])!r} is not a valid index name: small letters, digits, dots, dashes")
        host = parts.hostname or ""
        host = f"[{host}]" if ":" in host else host
        return cls(f"{'https' if parts.scheme == 'es+https' else 'http'}://{host}:{parts.port or 9200}", name)

    @property
    def where(self) -> str:
        return f"Elasticsearch at {self.server}"

    def connect(self, timeout_s: float = 60.0) -> Elasticsearch:
        """A client with its keys from the environment. Does not send anything yet.

        Raises `InputError` for a key that cannot be sent and for certificates that cannot be read.
        """
        options: dict[str, Any] = {"request_timeout": timeout_s, "max_retries": 0, "connections_per_node": CONNECTIONS}
        if key := Key.from_environment(_KEY):
            options["api_key"] = key.value
        elif user := os.environ.get(_USER):
            options["basic_auth"] = (user, os.environ.get(_PASSWORD, ""))
        if authority := os.environ.get(_CA):
            options["ca_certs"] = authority
        try:
            return Elasticsearch(self.server, **options)
        except (ValueError, OSError):
            raise InputError(f"{_CA} cannot be used: give a file of certificates, and an es+https:// URL") from None


@contextmanager
def boundary(address: Address) -> Iterator[None]:
    """Turns exceptions of the client into ours."""
    try:
        yield
    except UnsupportedProductError as error:  # an ApiError too
        raise InputError(f"{address.server} is not Elasticsearch: {_without_secrets(str(error))}") from None
    except ApiError as error:
        raise translated(address, error.status_code, *error_of(error.body)) from None
    except SerializationError:
        raise malformed(address, "it is not JSON") from None
    except TransportError as error:
        reason = _without_secrets(_short(error))
        if isinstance(error, TlsError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
            reason = f"the certificate of {address.where} is not trusted ({reason}): set {_CA} to its authority's file"
            raise RetrieverError(reason) from None
        raise RetrieverError(
            f"{address.where} does not answer ({reason}): is it running? `docker compose up -d` starts one.",
            transient=True,
        ) from None


def _without_secrets(text: str) -> str:
    """A text of the server or the client, without our credentials."""
    for name in (_KEY, _PASSWORD):
        if secret := os.environ.get(name):
            text = redact(text, secret, name)
    return text


def _short(error: TransportError) -> str:
    return re.sub(r"^(<[^>]*>|HTTPS?Connection[^:]*(:? *Pool)?\([^)]*\)): ", "", str(error.message)).split("(Caused")[0]


def translated(address: Address, status: int, kind: str, reason: str) -> R1Error:
    if kind == "media_type_header_exception":
        version = ".".join(map(str, elasticsearch.__version__))
        return InputError(
            f"{address.where} is older than the installed client, {version}: "
            f"pip install 'elasticsearch>=8.19,<{elasticsearch.__version__[0]}'."
        )
    if status in (401, 403) and kind != "cluster_block_exception":
        return InputError(f"{address.where} refuses access ({reason}): set {_KEY}, or {_USER} and {_PASSWORD}.")
    if kind == "index_not_found_exception":
        return InputError(
            f"{address.where} has no index {address.name}: fill it with `r1s index-corpus SOURCE --to es://…`."
        )
    return refusal(address, status, kind, reason)


def refusal(address: Address, status: int, kind: str, reason: str) -> RetrieverError:
    """An error of the server itself. A block with status 503 comes from a node that is still starting."""
    if kind == "cluster_block_exception" and status != 503:
        return RetrieverError(
            f"{address.where} has blocked writing, usually because its disk is nearly full ({reason}): "
            "free some space, and run the same command to resume."
        )
    if 300 <= status < 400:
        return RetrieverError(f"{address.where} redirects, and redirects are not followed: use its final URL")
    return RetrieverError(
        f"{address.where} failed with status {status}: {kind}: {reason}", transient=is_transient(status)
    )


def error_of(body: Any) -> tuple[str, str]:
    """Kind and reason of an error in Elasticsearch's words, each in one short line."""
    error = body.get("error", body) if isinstance(body, Mapping) else body
    if not isinstance(error, Mapping):
        return "error", _line(error)
    causes = error.get("root_cause")
    first = causes[0] if isinstance(causes, list) and causes and isinstance(causes[0], Mapping) else error
    return _line(first.get("type")), _line(first.get("reason"))


def _line(value: Any) -> str:
    return visible(" ".join(_without_secrets(str(value)[:_LONGEST_ERROR]).split()))[:300]


def malformed(address: Address, why: str) -> RetrieverError:
    return RetrieverError(f"{address.where} sent a response that is not Elasticsearch's: {_line(why)}")


def read(address: Address, model: type[M], body: Any) -> M:
    """A response of the server. Raises `RetrieverError` if it has another shape."""
    try:
        return model.model_validate(body)
    except ValueError as error:
        raise malformed(address, first_problem(error)) from None


class Source(BaseModel):
    id: StrictStr
    title: StrictStr
    text: StrictStr

    @property
    def passage(self) -> Passage:
        return Passage(self.id, self.title, self.text)


class _Mappings(BaseModel):
    meta: dict[str, Any] = Field({}, alias="_meta")


class _IndexSettings(BaseModel):
    number_of_shards: int


class _AllSettings(BaseModel):
    index: _IndexSettings


class State(BaseModel):
    """An index as Elasticsearch describes it."""

    aliases: dict[str, Any]
    mappings: _Mappings
    settings: _AllSettings

    @property
    def ours(self) -> Mapping[str, Any] | None:
        """What this module wrote into the mapping; None for an index from elsewhere."""
        meta = self.mappings.meta.get(META)
        return meta if isinstance(meta, Mapping) else None


class States(RootModel[dict[str, State]]):
    """Indexes by name."""


@dataclass(frozen=True, slots=True)
class Label:
    """The manifest of a finished index, with its number of shards, which determines how to query it."""

    index: str
    manifest: Manifest
    shards: int

    @property
    def search_options(self) -> Mapping[str, Any]:
        """More than one shard must be scored with the statistics of all."""
        options: dict[str, Any] = {"allow_partial_search_results": False}
        if self.shards > 1:
            options["search_type"] = "dfs_query_then_fetch"
        return options


def indexes(client: Elasticsearch, address: Address, pattern: str, **options: Any) -> dict[str, State]:
    """Indexes of that name, alias or pattern; empty if there are none."""
    found = client.options(ignore_status=404).indices.get(index=pattern, **options)
    return {} if found.meta.status == 404 else read(address, States, found.body).root


def read_label(client: Elasticsearch, address: Address) -> Label:
    found = indexes(client, address, address.name)
    if not found:
        if unfinished(client, address):
            raise InputError(
                f"{address.name} at {address.server} is not finished: run the command that started it again to resume."
            )
        raise InputError(
            f"{address.where} has no index {address.name}: "
            f"fill it with `r1s index-corpus SOURCE --to es://…/{address.name}`."
        )
    (index, state), *others = found.items()
    manifest = (state.ours or {}).get("manifest")
    if others or not isinstance(manifest, Mapping):
        raise InputError(f"{address.name} at {address.server} is not from `r1s index-corpus`: choose another name.")
    return Label(
        index, Manifest.from_json(manifest, f"{address.server}/{index}"), state.settings.index.number_of_shards
    )


def generations(client: Elasticsearch, address: Address) -> dict[str, State]:
    """Our indexes under a name, oldest first."""
    found = indexes(client, address, f"{address.name}-*", expand_wildcards="all")
    return {
        index: state
        for index, state in sorted(found.items())
        if re.fullmatch(re.escape(address.name) + r"-\d{6}", index) and state.ours is not None
    }


def unfinished(client: Elasticsearch, address: Address) -> dict[str, Mapping[str, Any]]:
    """Those that the name does not point to, with their progress."""
    return {
        index: state.ours or {}
        for index, state in generations(client, address).items()
        if address.name not in state.aliases
    }
