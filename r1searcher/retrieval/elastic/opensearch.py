"""OpenSearch through its own client: Elasticsearch's refuses it."""

import logging
import os
from typing import Any

from r1searcher.errors import InputError
from r1searcher.retrieval.elastic.server import (
    CONNECTIONS,
    OPENSEARCH,
    Address,
    encoded,
    malformed,
    translated,
    unreachable,
    unusable_certificates,
)


class OpenSearchConnection:
    """A `Connection`. Raises `InputError` if the client is not installed."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        try:
            import opensearchpy
        except ImportError as error:
            raise InputError("opensearch:// needs opensearch-py: pip install 'r1searcher[opensearch]'") from error
        logging.getLogger("opensearch").setLevel(logging.CRITICAL)  # it logs each failure with a traceback
        self._address = address
        self._errors = opensearchpy.exceptions
        options: dict[str, Any] = {"timeout": timeout_s, "max_retries": 0, "pool_maxsize": CONNECTIONS}
        if user := address.basic_auth:
            if not "".join(user).isprintable() or ":" in user[0]:
                raise InputError(f"{OPENSEARCH.user} or {OPENSEARCH.password} cannot be sent: set them again")
            options["http_auth"] = user
        if authorities := os.environ.get(OPENSEARCH.authorities):
            options["ca_certs"] = authorities
            if not address.server.startswith("https:") or not os.path.isfile(authorities):
                raise unusable_certificates(address)
        try:
            self._transport = opensearchpy.OpenSearch(address.server, **options).transport
        except (ValueError, OSError, opensearchpy.ImproperlyConfigured):
            raise unusable_certificates(address) from None

    def request(self, method: str, path: str, body: Any = None, *, missing: bool = False, **params: str) -> Any:
        content, headers = encoded(body)
        errors = self._errors
        try:
            return self._transport.perform_request(method, path, params=params, headers=headers, body=content)
        except errors.ConnectionError as error:
            raise unreachable(self._address, error.error) from None
        except errors.TransportError as error:
            if missing and error.status_code == 404:
                return {}
            body = error.info if isinstance(error.info, dict) else error.error
            raise translated(self._address, error.status_code, body) from None
        except (errors.SerializationError, UnicodeDecodeError, RecursionError):
            raise malformed(self._address, "it is not JSON") from None

    def close(self) -> None:
        self._transport.close()
