"""Elasticsearch and OpenSearch, which have the same interface, apart from their clients: indexes that `r1s
index-corpus` filled (`own`), and any others (`foreign`)."""
