"""A server of Elasticsearch or OpenSearch: its address and keys, one operation, and its errors.

OpenSearch began as a copy of Elasticsearch 7.10, so the requests of this package are the same for both. Only the Python
clients differ, which refuse or do not know the other server: `elasticsearch.py` and `opensearch.py` are a `Connection`
each.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

from pydantic import BaseModel

from r1searcher.common.http import first_problem, is_transient, redact, shown_url, split_url
from r1searcher.common.terminal import visible
from r1searcher.errors import InputError, R1Error, RetrieverError

M = TypeVar("M", bound=BaseModel)

CONNECTIONS = 16
"""Requests that are sent at the same time."""

_LONGEST_ERROR = 64 << 10


@dataclass(frozen=True, slots=True)
class Product:
    """Elasticsearch or OpenSearch. `scheme` is that of its URLs, `prefix` that of its environment variables."""

    name: str
    scheme: str
    prefix: str
    has_api_keys: bool

    @property
    def user(self) -> str:
        return f"{self.prefix}_USER"

    @property
    def password(self) -> str:
        return f"{self.prefix}_PASSWORD"

    @property
    def authorities(self) -> str:
        """The variable with a file of certificates."""
        return f"{self.prefix}_CA"

    @property
    def secrets(self) -> tuple[str, ...]:
        return (*self._api_key, self.password)

    @property
    def environment(self) -> tuple[str, ...]:
        return (*self._api_key, self.user, self.password, self.authorities)

    @property
    def access(self) -> str:
        """The variables to set, for errors."""
        return ", or ".join((*self._api_key, f"{self.user} and {self.password}"))

    @property
    def _api_key(self) -> tuple[str, ...]:
        return (f"{self.prefix}_API_KEY",) if self.has_api_keys else ()


ELASTICSEARCH = Product("Elasticsearch", "es", "R1S_ELASTICSEARCH", has_api_keys=True)
OPENSEARCH = Product("OpenSearch", "opensearch", "R1S_OPENSEARCH", has_api_keys=False)


class Connection(Protocol):
    """A client with its keys, for many threads."""

    def request(self, method: str, path: str, body: Any = None, *, missing: bool = False, **params: str) -> Any:
        """The JSON of a response. A list as `body` is one of lines, each encoded already.

        An empty object for status 404 with `missing`. Raises `RetrieverError` or `InputError` for every other failure.
        """
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Address:
    """`es://host:9200/name` or `opensearch://host:9200/name`, or the same with `+https`."""

    product: Product
    server: str
    name: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises `InputError` with the expected form."""
        product = OPENSEARCH if url.startswith(OPENSEARCH.scheme) else ELASTICSEARCH
        scheme = product.scheme
        parts = split_url(url, "the index's URL", f"set {product.access}", schemes=(scheme, f"{scheme}+https"))
        name = parts.path.strip("/")
        if not name:
            raise InputError(f"{shown_url(url)} does not name an index: write {scheme}://host:9200/name")
        if not re.fullmatch(r"[a-z0-9.][a-z0-9._+@$~-]{0,200}", name) or name in (".", ".."):
            raise InputError(f"{visible(name[:80])!r} is not a valid index name: small letters, digits, dots, dashes")
        if parts.query:
            raise InputError(f"{shown_url(url)}: an index to fill has no keys after its name")
        host = parts.hostname or ""
        host = f"[{host}]" if ":" in host else host
        protocol = "https" if parts.scheme.endswith("+https") else "http"
        return cls(product, f"{protocol}://{host}:{parts.port or 9200}", name)

    @property
    def where(self) -> str:
        return f"{self.product.name} at {self.server}"

    @property
    def basic_auth(self) -> tuple[str, str] | None:
        """User and password from the environment."""
        user = os.environ.get(self.product.user)
        return (user, os.environ.get(self.product.password, "")) if user else None

    def connect(self, timeout_s: float = 60.0) -> Connection:
        """A client with its keys from the environment. Does not send anything yet.

        Raises `InputError` for a key that cannot be sent, for certificates that cannot be read, and without the client.
        """
        if self.product is OPENSEARCH:
            from r1searcher.retrieval.elastic.opensearch import OpenSearchConnection

            return OpenSearchConnection(self, timeout_s)
        from r1searcher.retrieval.elastic.elasticsearch import ElasticsearchConnection

        return ElasticsearchConnection(self, timeout_s)


def encoded(body: Any) -> tuple[bytes | None, dict[str, str]]:
    """The bytes of a request's body, and its headers."""
    accept = {"accept": "application/json"}
    if body is None:
        return None, accept
    if isinstance(body, list):
        return b"".join(line + b"\n" for line in body), {**accept, "content-type": "application/x-ndjson"}
    return json.dumps(body).encode(), {**accept, "content-type": "application/json"}


def lines(values: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """A body of lines."""
    return [json.dumps(value).encode() for value in values]


def unusable_certificates(address: Address) -> InputError:
    product = address.product
    return InputError(
        f"{product.authorities} cannot be used: give a file of certificates, and an {product.scheme}+https:// URL"
    )


def unreachable(address: Address, reason: str) -> RetrieverError:
    """No response at all, for a reason in urllib3's words, which begin with a description of the connection.

    Which exception a client raises for a certificate depends on the version of urllib3.
    """
    reason = re.sub(r"^(<[^>]*>|HTTPS?Connection[^:]*(:? *Pool)?\([^)]*\)): ", "", reason).split("(Caused")[0]
    reason = without_secrets(address, reason)
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return RetrieverError(
            f"the certificate of {address.where} is not trusted ({reason}): "
            f"set {address.product.authorities} to its authority's file"
        )
    start = " `docker compose up -d` starts one." if address.product is ELASTICSEARCH else ""
    return RetrieverError(f"{address.where} does not answer ({reason}): is it running?{start}", transient=True)


def without_secrets(address: Address, text: str) -> str:
    """A text of the server or the client, without our credentials."""
    for name in address.product.secrets:
        if secret := os.environ.get(name):
            text = redact(text, secret, name)
    return text


def translated(address: Address, status: int, body: Any) -> R1Error:
    """An error response as one of ours."""
    kind, reason = error_of(address, body)
    if status in (401, 403) and kind != "cluster_block_exception":
        return InputError(f"{address.where} refuses access ({reason}): set {address.product.access}.")
    if kind == "index_not_found_exception":
        return no_such_index(address)
    return refusal(address, status, kind, reason)


def no_such_index(address: Address) -> InputError:
    return InputError(
        f"{address.where} has no index {address.name}: fill it with "
        f"`r1s index-corpus SOURCE --to {address.product.scheme}://…/{address.name}`, or correct the name."
    )


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


def error_of(address: Address, body: Any) -> tuple[str, str]:
    """Kind and reason of an error in the server's words, each in one short line."""
    error = body.get("error", body) if isinstance(body, Mapping) else body
    if not isinstance(error, Mapping):
        return "error", _line(address, error)
    causes = error.get("root_cause")
    first = causes[0] if isinstance(causes, list) and causes and isinstance(causes[0], Mapping) else error
    return _line(address, first.get("type")), _line(address, first.get("reason"))


def _line(address: Address, value: Any) -> str:
    return visible(" ".join(without_secrets(address, str(value)[:_LONGEST_ERROR]).split()))[:300]


def malformed(address: Address, why: str) -> RetrieverError:
    return RetrieverError(
        f"{address.where} sent a response that is not {address.product.name}'s: {_line(address, why)}"
    )


def read(address: Address, model: type[M], body: Any) -> M:
    """A response of the server. Raises `RetrieverError` if it has another shape."""
    try:
        return model.model_validate(body)
    except ValueError as error:
        raise malformed(address, first_problem(error)) from None
