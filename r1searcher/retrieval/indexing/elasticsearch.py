"""Fills Elasticsearch or OpenSearch: loads passages into an index that gets its name when it is complete."""

import json
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field

from r1searcher.common.retry import RetryPolicy
from r1searcher.common.terminal import visible
from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError, R1Error, RetrieverError
from r1searcher.retrieval.elastic.indexes import META, VECTOR, Source, generations, indexes, unfinished
from r1searcher.retrieval.elastic.server import Address, Connection, error_of, read, refusal
from r1searcher.retrieval.indexing.base import DenseOptions, IndexOptions
from r1searcher.retrieval.indexing.manifest import CorpusHash, Manifest, encode
from r1searcher.retrieval.neural.text import text_of

T = TypeVar("T")

_CHUNK = 1000
_CHECKPOINT_EVERY = 50_000
_LONGEST_ID = 8191
"""Characters of an id that can be looked up: Lucene's limit is 32,766 bytes, and a character has up to four."""


class _BulkResult(BaseModel):
    error: Any = None
    status: int = 200


class _BulkItem(BaseModel):
    create: _BulkResult


class _Bulk(BaseModel):
    errors: bool
    items: list[_BulkItem] = []


class _Document(BaseModel):
    found: bool
    source: Source | None = Field(None, alias="_source")


class _Documents(BaseModel):
    docs: list[_Document]


class _Count(BaseModel):
    count: int


class _Shards(BaseModel):
    total: int
    successful: int


class _Stats(BaseModel):
    shards: _Shards = Field(alias="_shards")


class _Decider(BaseModel):
    decision: str
    explanation: str


class _NodeDecision(BaseModel):
    deciders: list[_Decider] = []


class _Allocation(BaseModel):
    """Why a shard is not started."""

    node_allocation_decisions: list[_NodeDecision] = []

    @property
    def reason(self) -> str:
        deciders = (one for node in self.node_allocation_decisions for one in node.deciders)
        return next((one.explanation for one in deciders if one.decision == "NO"), "it gives no reason")


class _Progress(BaseModel):
    """The progress of an unfinished load."""

    settings: dict[str, Any]
    passages: Annotated[int, Field(ge=0)]
    sha256: str
    vectors: dict[str, Any] | None = None


class ElasticsearchIndexer:
    """`es://host:9200/name` or `opensearch://host:9200/name`, to be filled."""

    folder: Path | None = None

    def __init__(self, url: str, options: IndexOptions) -> None:
        self._url = url
        self._options = options

    def check(self) -> None:
        _refuse_precision(self._options)
        check_target(self._url, self._options.overwrite)

    def index(self, passages: Iterable[Passage], on_progress: Callable[[int], None]) -> Manifest:
        return load(passages, self._url, self._options, on_progress=on_progress)


def load(
    passages: Iterable[Passage],
    url: str,
    options: IndexOptions | None = None,
    *,
    threads: int = 2,
    retry_timeout_s: float = 60.0,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Manifest:
    """Index passages on a server under the name in `url`, which can be searched only when it is complete.

    An interrupted load of the same passages is resumed. With `options.overwrite` the finished index can be searched
    until the new one replaces it. If a server does not respond, requests are retried for `retry_timeout_s` seconds.
    Raises `InputError` before anything is sent, then `RetrieverError`.
    """
    options = options or IndexOptions()
    _refuse_precision(options)
    address = Address.parse(url)
    with closing(address.connect()) as connection:
        _refuse_name_in_use(connection, address, options.overwrite)
        target = _Load(connection, address, options, retry_timeout_s)
        return target.run(passages, threads, on_progress)


def _refuse_precision(options: IndexOptions) -> None:
    if options.dense and options.dense.vectors == "float16":
        raise InputError("Elasticsearch has no vectors in float16: add --vectors float32 or --vectors int8.")


def check_target(url: str, overwrite: bool) -> None:
    """Raises what `load` would raise before it sends anything; call it before large downloads."""
    address = Address.parse(url)
    with closing(address.connect()) as connection:
        _refuse_name_in_use(connection, address, overwrite)


def _refuse_name_in_use(connection: Connection, address: Address, overwrite: bool) -> None:
    connection.request("GET", "/")  # here the client checks which server this is
    found = indexes(connection, address, address.name)
    if not found:
        return
    if address.name in found or set(found) - set(generations(connection, address)):
        raise InputError(f"{address.name} at {address.server} is not from `r1s index-corpus`: choose another name.")
    if not overwrite:
        raise InputError(
            f"{address.name} at {address.server} is already filled: use it, choose another name, or add --overwrite."
        )


class _Vectors:
    """Makes the vectors of passages; for many threads."""

    def __init__(self, dense: DenseOptions) -> None:
        from r1searcher.retrieval.elastic.vectors import VectorsLabel  # imports numpy
        from r1searcher.retrieval.neural.encoder import Encoder

        assert dense.vectors != "float16"
        self._encoder = encoder = Encoder(
            dense.encoder, device=dense.device, batch_size=dense.batch_size, remote_code=dense.trust_remote_code
        )
        self._lock = threading.Lock()
        label = VectorsLabel(
            encoder=dense.encoder, weights=encoder.weights, dimensions=encoder.dimensions, vectors=dense.vectors
        )
        self.made_with, self.field = asdict(label), label.field

    def of(self, chunk: Sequence[Passage]) -> list[dict[str, list[float]]]:
        """The field of each document."""
        with self._lock:
            vectors = self._encoder.passages(list(map(text_of, chunk)))
        return [{VECTOR: vector} for vector in vectors.astype(float).round(7).tolist()]


class _Load:
    """A load in progress into one index that does not have an alias yet."""

    def __init__(self, connection: Connection, address: Address, options: IndexOptions, retry_timeout_s: float) -> None:
        self._connection = connection
        self._address = address
        self._settings = settings = options.settings
        self._vectors = _Vectors(options.dense) if options.dense else None
        self._retries = RetryPolicy(deadline=retry_timeout_s, first_pause=0.2, longest_pause=5.0)
        begun = unfinished(connection, address)
        if options.restart:
            for index in begun:
                connection.request("DELETE", f"/{index}")
            begun = {}
        self._progress: dict[str, Any] = {
            "settings": asdict(settings),
            "passages": 0,
            "sha256": CorpusHash().hexdigest(),
            "vectors": self._vectors and self._vectors.made_with,
        }
        if begun:
            self._index, begun_with = list(begun.items())[-1]
            progress = read(address, _Progress, begun_with).model_dump()
            if any(progress[key] != self._progress[key] for key in ("settings", "vectors")):
                raise self._other_corpus()
            self._progress = progress
        else:
            last = max((int(index[-6:]) for index in generations(connection, address)), default=0)
            self._index = f"{address.name}-{last + 1:06d}"
            self._create(options.shards)

    def _create(self, shards: int) -> None:
        terms = {"type": "text", "analyzer": self._settings.analyzer, "index_options": "freqs"}
        fields: dict[str, Any] = {
            "ordinal": {"type": "long", "index": False},
            "id": {"type": "keyword", "doc_values": False, "ignore_above": _LONGEST_ID},
        }
        if self._settings.title_weight is None:
            both = {"type": "text", "index": False, "copy_to": "contents"}
            fields |= {"title": both, "text": both, "contents": terms}
        else:
            fields |= {"title": terms, "text": terms}
        if self._vectors:
            fields[VECTOR] = self._vectors.field
        similarity = {"type": "BM25", "k1": self._settings.k1, "b": self._settings.b}
        settings = {
            "number_of_shards": shards,
            "number_of_replicas": 0,
            "refresh_interval": "-1",
            "similarity": {"default": similarity},
        }
        mappings = {
            "dynamic": "strict",
            "_source": {"excludes": [VECTOR] if self._vectors else []},  # the text of vectors is several times larger
            "properties": fields,
            "_meta": {META: self._progress},
        }
        body = {"settings": settings, "mappings": mappings}
        self._connection.request("PUT", f"/{self._index}", body, wait_for_active_shards="0")

    def _require_shards(self) -> None:
        """Raises `RetrieverError` as long as a shard is not started: requests would wait for it until they time out."""
        body = self._connection.request("GET", f"/{self._index}/_stats/docs", filter_path="_shards")
        shards = read(self._address, _Stats, body).shards
        if shards.successful < shards.total:
            raise RetrieverError(
                f"{self._address.where} has not started {shards.total - shards.successful} of {shards.total} shards "
                f"of {self._index}: {self._why_not_started()}",
                transient=True,
            )

    def _why_not_started(self) -> str:
        asked = {"index": self._index, "shard": 0, "primary": True}
        try:
            body = self._connection.request("GET", "/_cluster/allocation/explain", asked)
            reason = read(self._address, _Allocation, body).reason
        except R1Error:  # for example without the permission to ask
            reason = _Allocation().reason
        return visible(" ".join(reason.split())[:300])

    def _other_corpus(self) -> InputError:
        return InputError(
            f"{self._index} at {self._address.server} is an interrupted load of other passages or settings: "
            "--restart throws it away and begins again."
        )

    def run(self, passages: Iterable[Passage], threads: int, on_progress: Callable[[int], None]) -> Manifest:
        corpus = CorpusHash()
        rows = iter(passages)
        done = 0
        for passage in islice(rows, self._progress["passages"]):
            corpus.add(encode(passage))
            done += 1
            on_progress(done)
        if (done, corpus.hexdigest()) != (self._progress["passages"], self._progress["sha256"]):
            raise self._other_corpus()
        self._retried(self._require_shards)
        done = self._send_all(rows, done, corpus, threads, on_progress)
        if not done:
            raise InputError("The corpus does not contain a passage: nothing was indexed.")
        return self._finish(Manifest(self._settings, done, corpus.hexdigest()))

    def _send_all(
        self,
        rows: Iterator[Passage],
        done: int,
        corpus: CorpusHash,
        threads: int,
        on_progress: Callable[[int], None],
    ) -> int:
        """Chunks are sent in order, a few at a time; a checkpoint covers only what was acknowledged without a gap."""
        waiting: deque[tuple[Future[None], int, str]] = deque()

        def acknowledge() -> None:
            sent, upto, digest = waiting.popleft()
            sent.result()
            on_progress(upto)
            if upto - self._progress["passages"] >= _CHECKPOINT_EVERY:
                self._checkpoint({"passages": upto, "sha256": digest})

        with ThreadPoolExecutor(threads, thread_name_prefix="bulk") as pool:
            try:
                while chunk := list(islice(rows, _CHUNK)):
                    for passage in chunk:
                        corpus.add(encode(passage))
                    waiting.append((pool.submit(self._send, chunk, done), done + len(chunk), corpus.hexdigest()))
                    done += len(chunk)
                    if len(waiting) > 2 * threads:
                        acknowledge()
                while waiting:
                    acknowledge()
            finally:
                for sent, _, _ in waiting:
                    sent.cancel()
        return done

    def _checkpoint(self, progress: Mapping[str, Any]) -> None:
        self._progress = {**self._progress, **progress}
        self._retried(lambda: self._put_meta(self._progress))

    def _put_meta(self, ours: Mapping[str, Any]) -> None:
        self._connection.request("PUT", f"/{self._index}/_mapping", {"_meta": {META: ours}})

    def _send(self, chunk: Sequence[Passage], first: int) -> None:
        """Creates the documents of one chunk. Those of an earlier try are compared, not written again."""
        rows: list[bytes] = []
        vectors = self._vectors.of(chunk) if self._vectors else [{}] * len(chunk)
        for ordinal, (passage, vector) in enumerate(zip(chunk, vectors, strict=True), first):
            document = {"ordinal": ordinal, "id": passage.id, "title": passage.title, "text": passage.text, **vector}
            rows.append(f'{{"create":{{"_id":"{ordinal}"}}}}'.encode())
            rows.append(json.dumps(document, ensure_ascii=False).encode())
        kinds = self._retried(lambda: self._bulk(rows))
        if "version_conflict_engine_exception" in kinds:
            ids = [str(ordinal) for ordinal in range(first, first + len(chunk))]
            body = self._retried(lambda: self._connection.request("POST", f"/{self._index}/_mget", {"ids": ids}))
            found = read(self._address, _Documents, body).docs
            if [document.source and document.source.passage for document in found] != list(chunk):
                raise self._other_corpus()

    def _bulk(self, rows: list[bytes]) -> set[str]:
        """The kinds of error; only conflicts are left to the caller."""
        shown = "errors,items.*.error,items.*.status"
        body = self._connection.request("POST", f"/{self._index}/_bulk", rows, filter_path=shown)
        answer = read(self._address, _Bulk, body)
        kinds = set()
        for item in answer.items if answer.errors else []:
            if item.create.error is None:
                continue
            kind, reason = error_of(self._address, {"error": item.create.error})
            if kind != "version_conflict_engine_exception":
                raise refusal(self._address, item.create.status, kind, reason)
            kinds.add(kind)
        return kinds

    def _retried(self, call: Callable[[], T]) -> T:
        """Waits up to `retry_timeout_s` seconds for a server that is busy or down. Every call here can be repeated."""
        try:
            return self._retries.call(call)
        except RetrieverError as error:
            raise RetrieverError(
                f"{error} What was acknowledged is kept; run the same command to resume.", transient=error.transient
            ) from error

    def _finish(self, manifest: Manifest) -> Manifest:
        self._retried(lambda: self._connection.request("POST", f"/{self._index}/_refresh"))
        body = self._retried(lambda: self._connection.request("GET", f"/{self._index}/_count"))
        count = read(self._address, _Count, body).count
        if count != manifest.passages:
            raise RetrieverError(
                f"{self._index} has {count:,} of {manifest.passages:,} passages, so it is not used: "
                "use --restart to start again."
            )
        self._connection.request("PUT", f"/{self._index}/_settings", {"index": {"refresh_interval": None}})
        self._put_meta({**self._progress, "manifest": manifest.to_json()})
        old = [index for index in generations(self._connection, self._address) if index < self._index]
        actions: list[dict[str, Any]] = [
            {"add": {"index": self._index, "alias": self._address.name}},
            *({"remove_index": {"index": index}} for index in old),
        ]
        self._connection.request("POST", "/_aliases", {"actions": actions})
        return manifest
