"""Elasticsearch through its own client, which refuses every other server."""

import logging
import os
from typing import Any

import elasticsearch
from elasticsearch import (
    ApiError,
    Elasticsearch,
    NotFoundError,
    SerializationError,
    TransportError,
    UnsupportedProductError,
)

from r1searcher.common.http import Key
from r1searcher.errors import InputError, R1Error
from r1searcher.retrieval.elastic.server import (
    CONNECTIONS,
    ELASTICSEARCH,
    OPENSEARCH,
    Address,
    encoded,
    error_of,
    malformed,
    translated,
    unreachable,
    unusable_certificates,
    without_secrets,
)

OLDEST = 8
"""The oldest major version of a server that this package works with."""


class ElasticsearchConnection:
    """A `Connection`."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        logging.getLogger("elastic_transport").setLevel(logging.CRITICAL)  # it logs each failure as well
        self._address = address
        options: dict[str, Any] = {"request_timeout": timeout_s, "max_retries": 0, "connections_per_node": CONNECTIONS}
        if key := Key.from_environment(f"{ELASTICSEARCH.prefix}_API_KEY"):
            options["api_key"] = key.value
        elif address.basic_auth:
            options["basic_auth"] = address.basic_auth
        if authorities := os.environ.get(ELASTICSEARCH.authorities):
            options["ca_certs"] = authorities
        try:
            self._client = Elasticsearch(address.server, **options)
        except (ValueError, OSError):
            raise unusable_certificates(address) from None

    def request(self, method: str, path: str, body: Any = None, *, missing: bool = False, **params: str) -> Any:
        content, headers = encoded(body)
        try:
            return self._client.perform_request(method, path, params=params, headers=headers, body=content).body
        except UnsupportedProductError as error:  # an ApiError too
            reason = without_secrets(self._address, str(error))
            raise InputError(
                f"{self._address.server} is not Elasticsearch: {reason}; for OpenSearch write {OPENSEARCH.scheme}://…"
            ) from None
        except NotFoundError as error:
            if missing:
                return {}
            raise self._translated(error) from None
        except ApiError as error:
            raise self._translated(error) from None
        except (SerializationError, RecursionError):
            raise malformed(self._address, "it is not JSON") from None
        except TransportError as error:
            raise unreachable(self._address, str(error.message)) from None

    def close(self) -> None:
        self._client.close()

    def _translated(self, error: ApiError) -> R1Error:
        kind, _ = error_of(self._address, error.body)
        if kind != "media_type_header_exception":
            return translated(self._address, error.status_code, error.body)
        version, major = ".".join(map(str, elasticsearch.__version__)), elasticsearch.__version__[0]
        older = f"{self._address.where} is older than the installed client, {version}"
        if major <= OLDEST:
            return InputError(f"{older}, and no version before {OLDEST} is supported.")
        return InputError(f"{older}: pip install 'elasticsearch>=8.19,<{major}'.")
