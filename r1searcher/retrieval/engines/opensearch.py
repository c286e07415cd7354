"""OpenSearch as a retriever: settings."""

from typing import ClassVar, Literal

from r1searcher.retrieval.elastic.server import OPENSEARCH
from r1searcher.retrieval.engines.elasticsearch import ElasticSettings


class Settings(ElasticSettings):
    """`opensearch://host:9200/name` or `opensearch+https://host:9200/name`, filled by `r1s index-corpus`; with
    `?fields=title,text` any other index."""

    environment: ClassVar[tuple[str, ...]] = OPENSEARCH.environment

    kind: Literal["opensearch"] = "opensearch"
