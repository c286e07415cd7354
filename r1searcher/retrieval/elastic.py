"""Elasticsearch as a retriever, and the loader that fills it; it ranks and scores as the embedded index does.

The name in `es://host:9200/NAME` is an alias. Passages are loaded into an index `NAME-000001` of its own, and the alias
is moved to it, in one step, when the counts agree: a half-filled index never answers. The index carries its `Manifest`
in the mapping's `_meta`, where an unfinished one carries how far it has come.

Documents: `_id` and `ordinal` are the place in the corpus, so that equal scores fall to corpus order and nothing can be
indexed twice; `id`, `title` and `text` are the passage.
"""

import asyncio
import json
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Self
from urllib.parse import urlsplit

import elasticsearch
from elasticsearch import ApiError, Elasticsearch, TransportError, UnsupportedProductError

from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError, R1Error, RetrieverError
from r1searcher.retrieval.base import Health, Hit, clean_query
from r1searcher.retrieval.manifest import CorpusHash, IndexSettings, Manifest, encode

MAX_TOP_K = 10_000
"""Elasticsearch's `max_result_window`."""

_META = "r1searcher"
_SEARCH_THREADS = 16
_QUERIES_AT_ONCE = 64
_CHUNK = 1000
_CHECKPOINT_EVERY = 50_000
_KEY, _USER, _PASSWORD, _CA = (f"R1S_ELASTICSEARCH_{name}" for name in ("API_KEY", "USER", "PASSWORD", "CA"))


@dataclass(frozen=True, slots=True)
class Address:
    """`es://host:9200/name`, or `es+https://…`."""

    server: str
    name: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises `InputError` with the form that is wanted."""
        parts = urlsplit(url)
        name = parts.path.strip("/")
        if parts.username is not None or parts.password is not None:
            raise InputError(f"Leave user and password out of the URL: set {_KEY}, or {_USER} and {_PASSWORD}.")
        try:
            host, port = parts.hostname, parts.port or 9200
        except ValueError:
            host = None
        if parts.scheme not in ("es", "es+https") or not host or not name:
            raise InputError(f"{url} is no Elasticsearch index: write es://host:9200/name.")
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,200}", name):
            raise InputError(f"{name!r} cannot name an index: small letters, digits, dots, dashes, no dash in front.")
        return cls(f"{'https' if parts.scheme == 'es+https' else 'http'}://{host}:{port}", name)

    def connect(self) -> Elasticsearch:
        """A client with its keys from the environment. Nothing is sent yet."""
        options: dict[str, Any] = {"request_timeout": 60, "max_retries": 0, "connections_per_node": _SEARCH_THREADS}
        if key := os.environ.get(_KEY):
            options["api_key"] = key
        elif user := os.environ.get(_USER):
            options["basic_auth"] = (user, os.environ.get(_PASSWORD, ""))
        if authority := os.environ.get(_CA):
            options["ca_certs"] = authority
        return Elasticsearch(self.server, **options)


@contextmanager
def _boundary(address: Address) -> Iterator[None]:
    """The one place where exceptions of the client become ours."""
    try:
        yield
    except UnsupportedProductError as error:  # an ApiError too
        raise InputError(f"{address.server} is not Elasticsearch: {error}") from error
    except ApiError as error:
        raise _translated(address, error.status_code, *_error_of(error.body)) from error
    except TransportError as error:
        raise RetrieverError(
            f"Elasticsearch at {address.server} does not answer ({_short(error)}): "
            "is it running? `docker compose up -d` starts one."
        ) from error


def _short(error: TransportError) -> str:
    return re.sub(r"^(<[^>]*>|HTTPS?Connection[^:]*(:? *Pool)?\([^)]*\)): ", "", str(error.message)).split("(Caused")[0]


def _translated(address: Address, status: int, kind: str, reason: str) -> R1Error:
    where = f"Elasticsearch at {address.server}"
    if kind == "media_type_header_exception":
        version = ".".join(map(str, elasticsearch.__version__))
        return InputError(
            f"{where} is older than the installed client, {version}: "
            f"pip install 'elasticsearch>=8.19,<{elasticsearch.__version__[0]}'."
        )
    if status in (401, 403) and kind != "cluster_block_exception":
        return InputError(f"{where} refuses access ({reason}): set {_KEY}, or {_USER} and {_PASSWORD}.")
    if kind == "index_not_found_exception":
        return InputError(f"{where} has no index {address.name}: fill it with `r1s index-corpus SOURCE --to es://…`.")
    return _refusal(where, kind, reason)


def _refusal(where: str, kind: str, reason: str) -> RetrieverError:
    if kind == "cluster_block_exception":
        return RetrieverError(
            f"{where} has blocked writing, as it does when its disk is nearly full ({reason}): "
            "free some space; the same command then goes on."
        )
    return RetrieverError(f"{where} failed: {kind}: {reason}")


def _error_of(body: Any) -> tuple[str, str]:
    """Kind and reason of an error as Elasticsearch words it."""
    error = body.get("error", body) if isinstance(body, Mapping) else body
    if not isinstance(error, Mapping):
        return "error", str(error)[:300]
    causes = error.get("root_cause") or [error]
    return str(causes[0].get("type")), str(causes[0].get("reason"))[:300]


class ElasticsearchIndex:
    """An index that `load` filled. Searches run in threads; a batch of queries is one request."""

    def __init__(self, url: str) -> None:
        self._address = Address.parse(url)
        self._client = self._address.connect()
        self._pool = ThreadPoolExecutor(_SEARCH_THREADS, thread_name_prefix="elasticsearch")
        self._labels: dict[str, _Label] = {}

    async def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        if not queries or top_k < 1:
            return [[] for _ in queries]
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._search, queries, top_k)

    async def health(self) -> Health:
        label = await asyncio.get_running_loop().run_in_executor(self._pool, self._reload)
        return Health(
            f"{self._address.server}/{self._address.name}", label.manifest.passages, label.manifest.settings_hash
        )

    async def aclose(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _reload(self) -> "_Label":
        """The label of the index that the alias points to now."""
        with _boundary(self._address):
            label = _read_label(self._client, self._address)
        self._labels[label.index] = label
        return label

    def _search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        if top_k > MAX_TOP_K:
            raise InputError(f"Elasticsearch gives at most {MAX_TOP_K:,} passages a query, not {top_k:,}.")
        label = next(reversed(self._labels.values()), None) or self._reload()
        found: list[list[Hit]] = []
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            lines: list[Mapping[str, Any]] = []
            for query in queries[start : start + _QUERIES_AT_ONCE]:
                lines += ({"index": self._address.name, **label.search_options}, self._body(label, query, top_k))
            with _boundary(self._address):
                answers = self._client.msearch(searches=lines).body["responses"]
            found += [self._hits(answer) for answer in answers]
        return found

    def _body(self, label: "_Label", query: str, top_k: int) -> Mapping[str, Any]:
        text = clean_query(query)
        weight = label.manifest.settings.title_weight
        match: Mapping[str, Any] = {"match": {"contents": text}}
        if weight is not None:
            should = [{"match": {"title": {"query": text, "boost": weight}}}, {"match": {"text": text}}]
            match = {"bool": {"should": should}}
        return {
            "size": top_k,
            "query": match,
            "sort": [{"_score": "desc"}, {"ordinal": "asc"}],
            "_source": ["id", "title", "text"],
            "track_total_hits": False,
        }

    def _hits(self, answer: Mapping[str, Any]) -> list[Hit]:
        if "error" in answer:
            raise _translated(self._address, answer.get("status", 500), *_error_of(answer))
        if answer["timed_out"] or answer["_shards"]["failed"]:
            raise RetrieverError(f"Elasticsearch at {self._address.server} could not search all of its shards.")
        hits = []
        for hit in answer["hits"]["hits"]:
            label = self._labels.get(hit["_index"]) or self._reload()  # the alias was moved meanwhile
            source = hit["_source"]
            passage = Passage(source["id"], source["title"], source["text"])
            hits.append(Hit(passage, hit["sort"][0] / (label.manifest.settings.k1 + 1)))
        return hits


@dataclass(frozen=True, slots=True)
class _Label:
    """What a finished index says of itself, with the shards that decide how it must be asked."""

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


def _read_label(client: Elasticsearch, address: Address) -> _Label:
    found = client.options(ignore_status=404).indices.get(index=address.name).body
    if "error" in found:
        if _unfinished(client, address.name):
            raise InputError(
                f"{address.name} at {address.server} is not finished: the command that began it, given again, goes on."
            )
        raise InputError(
            f"Elasticsearch at {address.server} has no index {address.name}: "
            f"fill it with `r1s index-corpus SOURCE --to es://…/{address.name}`."
        )
    (index, state), *others = found.items()
    meta = state["mappings"].get("_meta", {}).get(_META, {})
    if others or "manifest" not in meta:
        raise InputError(f"{address.name} at {address.server} was not made by `r1s index-corpus`: choose another name.")
    manifest = Manifest.from_json(meta["manifest"], f"{address.server}/{index}")
    return _Label(index, manifest, int(state["settings"]["index"]["number_of_shards"]))


def _generations(client: Elasticsearch, name: str) -> dict[str, dict[str, Any]]:
    """The indexes of ours behind a name, oldest first, as Elasticsearch describes them."""
    found = client.options(ignore_status=404).indices.get(index=f"{name}-*", expand_wildcards="all").body
    return {
        index: state
        for index, state in sorted(found.items())
        if re.fullmatch(re.escape(name) + r"-\d{6}", index) and _META in state["mappings"].get("_meta", {})
    }


def _unfinished(client: Elasticsearch, name: str) -> dict[str, dict[str, Any]]:
    """Those that the name does not point to, with how far they have come."""
    return {
        index: state["mappings"]["_meta"][_META]
        for index, state in _generations(client, name).items()
        if name not in state["aliases"]
    }


def load(
    passages: Iterable[Passage],
    url: str,
    settings: IndexSettings | None = None,
    *,
    overwrite: bool = False,
    restart: bool = False,
    shards: int = 1,
    threads: int = 2,
    patience: float = 60.0,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Manifest:
    """Index passages into Elasticsearch under the name in `url`, which answers only when all of them are in.

    An interrupted load of the same passages goes on where it stopped (`restart` throws it away instead); a finished
    index is replaced only with `overwrite`, and answers until the new one takes its place. A server that does not
    answer is waited for `patience` seconds. Raises `InputError` before anything is sent and `RetrieverError` after.
    """
    address = Address.parse(url)
    with _boundary(address), address.connect() as client:
        _refuse_name_in_use(client, address, overwrite)
        target = _Load(client, address, settings or IndexSettings(), shards, restart, patience)
        return target.run(passages, threads, on_progress)


def check_target(url: str, overwrite: bool) -> None:
    """Raises what `load` would raise before it sends anything; to be asked before anything large is fetched."""
    address = Address.parse(url)
    with _boundary(address), address.connect() as client:
        _refuse_name_in_use(client, address, overwrite)


def _refuse_name_in_use(client: Elasticsearch, address: Address, overwrite: bool) -> None:
    client.info()  # the client looks here at whom it talks to
    found = client.options(ignore_status=404).indices.get(index=address.name).body
    if "error" in found:
        return
    if address.name in found or set(found) - set(_generations(client, address.name)):
        raise InputError(f"{address.name} at {address.server} was not made by `r1s index-corpus`: choose another name.")
    if not overwrite:
        raise InputError(
            f"{address.name} at {address.server} is filled already: use it, choose another name, or add --overwrite."
        )


class _Load:
    """A load under way into one index that has no alias yet."""

    def __init__(
        self,
        client: Elasticsearch,
        address: Address,
        settings: IndexSettings,
        shards: int,
        restart: bool,
        patience: float,
    ) -> None:
        self._client = client
        self._address = address
        self._settings = settings
        self._patience = patience
        unfinished = _unfinished(client, address.name)
        if restart:
            for index in unfinished:
                client.indices.delete(index=index)
            unfinished = {}
        self._progress: dict[str, Any] = {
            "settings": asdict(settings),
            "passages": 0,
            "sha256": CorpusHash().hexdigest(),
        }
        if unfinished:
            self._index, self._progress = list(unfinished.items())[-1]
            if self._progress["settings"] != asdict(settings):
                raise self._other_corpus()
        else:
            last = max((int(index[-6:]) for index in _generations(client, address.name)), default=0)
            self._index = f"{address.name}-{last + 1:06d}"
            self._create(shards)

    def _create(self, shards: int) -> None:
        terms = {"type": "text", "analyzer": self._settings.analyzer, "index_options": "freqs"}
        fields: dict[str, Any] = {
            "ordinal": {"type": "long", "index": False},
            "id": {"type": "keyword", "index": False, "doc_values": False},
        }
        if self._settings.title_weight is None:
            both = {"type": "text", "index": False, "copy_to": "contents"}
            fields |= {"title": both, "text": both, "contents": terms}
        else:
            fields |= {"title": terms, "text": terms}
        similarity = {"type": "BM25", "k1": self._settings.k1, "b": self._settings.b}
        self._client.indices.create(
            index=self._index,
            settings={
                "number_of_shards": shards,
                "number_of_replicas": 0,
                "refresh_interval": "-1",
                "similarity": {"default": similarity},
            },
            mappings={"dynamic": "strict", "properties": fields, "_meta": {_META: self._progress}},
        )

    def _other_corpus(self) -> InputError:
        return InputError(
            f"{self._index} at {self._address.server} is a load of other passages or settings that was interrupted: "
            "--restart throws it away and begins anew."
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
        done = self._send_all(rows, done, corpus, threads, on_progress)
        if not done:
            raise InputError("The corpus holds no passage: nothing was indexed.")
        return self._finish(Manifest(self._settings, done, corpus.hexdigest()))

    def _send_all(
        self,
        rows: Iterator[Passage],
        done: int,
        corpus: CorpusHash,
        threads: int,
        on_progress: Callable[[int], None],
    ) -> int:
        """Chunks go out in order, a few at a time; a checkpoint covers only what was acknowledged without a gap."""
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
        self._retried(lambda: self._client.indices.put_mapping(index=self._index, meta={_META: self._progress}))

    def _send(self, chunk: Sequence[Passage], first: int) -> None:
        """Creates the documents of one chunk. Those that an earlier try left there are compared, not written again."""
        lines = []
        for ordinal, passage in enumerate(chunk, first):
            document = {"ordinal": ordinal, "id": passage.id, "title": passage.title, "text": passage.text}
            lines.append(f'{{"create":{{"_id":"{ordinal}"}}}}'.encode())
            lines.append(json.dumps(document, ensure_ascii=False).encode())
        kinds = self._retried(lambda: self._bulk(lines))
        if "version_conflict_engine_exception" in kinds:
            ids = [str(ordinal) for ordinal in range(first, first + len(chunk))]
            found = self._retried(lambda: self._client.mget(index=self._index, ids=ids).body["docs"])
            there = [
                doc["found"] and Passage(*(doc["_source"][key] for key in ("id", "title", "text"))) for doc in found
            ]
            if there != list(chunk):
                raise self._other_corpus()

    def _bulk(self, lines: Sequence[Any]) -> set[str]:
        """The kinds of error met; only conflicts are left to the caller."""
        answer = self._client.bulk(index=self._index, operations=lines, filter_path="errors,items.*.error").body
        kinds = set()
        for item in answer.get("items", []) if answer["errors"] else []:
            kind, reason = _error_of(item["create"]["error"])
            if kind == "es_rejected_execution_exception":
                raise _BusyError(reason)
            if kind != "version_conflict_engine_exception":
                raise _refusal(f"Elasticsearch at {self._address.server}", kind, reason)
            kinds.add(kind)
        return kinds

    def _retried(self, call: Callable[[], Any]) -> Any:
        """Waits out a server that is busy or away, up to `patience` seconds. Every call made here may be repeated."""
        started = time.monotonic()
        pause = 0.2
        while True:
            try:
                with _boundary(self._address):
                    return call()
            except (RetrieverError, _BusyError) as error:
                passing = (
                    isinstance(error, _BusyError) or isinstance(error.__cause__, TransportError) or _is_busy(error)
                )
                if not passing or time.monotonic() - started > self._patience:
                    raise RetrieverError(f"{error} What was acknowledged is kept; the same command goes on.") from error
                time.sleep(pause)
                pause = min(2 * pause, 5.0)

    def _finish(self, manifest: Manifest) -> Manifest:
        self._retried(lambda: self._client.indices.refresh(index=self._index))
        count = self._client.count(index=self._index)["count"]
        if count != manifest.passages:
            raise RetrieverError(
                f"{self._index} holds {count:,} passages of {manifest.passages:,}: it is not put to use; "
                "--restart begins anew."
            )
        self._client.indices.put_settings(index=self._index, settings={"refresh_interval": None})
        self._client.indices.put_mapping(
            index=self._index, meta={_META: {**self._progress, "manifest": manifest.to_json()}}
        )
        old = [index for index in _generations(self._client, self._address.name) if index < self._index]
        self._client.indices.update_aliases(
            actions=[
                {"add": {"index": self._index, "alias": self._address.name}},
                *({"remove_index": {"index": index}} for index in old),
            ]
        )
        return manifest


class _BusyError(Exception):
    """The server refused a part of a bulk request because its queue is full."""


def _is_busy(error: BaseException) -> bool:
    cause = error.__cause__
    return (
        isinstance(cause, ApiError)
        and cause.status_code in (429, 502, 503, 504)
        and _error_of(cause.body)[0] != "cluster_block_exception"
    )
