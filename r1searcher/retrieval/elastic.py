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
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Annotated, Any, Self, TypeVar

import elasticsearch
from elastic_transport import TlsError
from elasticsearch import ApiError, Elasticsearch, SerializationError, TransportError, UnsupportedProductError
from pydantic import BaseModel, Field, FiniteFloat, RootModel, StrictStr

from r1searcher.common.http import Key, first_problem, is_transient, redact, shown_url, split_url
from r1searcher.common.retry import RetryPolicy
from r1searcher.common.terminal import visible
from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError, R1Error, RetrieverError
from r1searcher.retrieval.base import Health, Hit, clean_query
from r1searcher.retrieval.manifest import CorpusHash, IndexSettings, Manifest, encode

MAX_TOP_K = 10_000
"""Elasticsearch's `max_result_window`."""

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

_META = "r1searcher"
_LONGEST_ERROR = 64 << 10
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
        parts = split_url(url, "the index's URL", f"set {_KEY}, or {_USER} and {_PASSWORD}", schemes=("es", "es+https"))
        name = parts.path.strip("/")
        if not name:
            raise InputError(f"{shown_url(url)} does not name an index: write es://host:9200/name")
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,200}", name):
            raise InputError(
                f"{visible(name[:80])!r} cannot name an index: small letters, digits, dots, dashes, no dash in front"
            )
        host = parts.hostname or ""
        host = f"[{host}]" if ":" in host else host
        return cls(f"{'https' if parts.scheme == 'es+https' else 'http'}://{host}:{parts.port or 9200}", name)

    @property
    def where(self) -> str:
        return f"Elasticsearch at {self.server}"

    def connect(self) -> Elasticsearch:
        """A client with its keys from the environment. Nothing is sent yet.

        Raises `InputError` for a key that cannot be sent and for certificates that cannot be read.
        """
        options: dict[str, Any] = {"request_timeout": 60, "max_retries": 0, "connections_per_node": _SEARCH_THREADS}
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
def _boundary(address: Address) -> Iterator[None]:
    """The one place where exceptions of the client become ours."""
    try:
        yield
    except UnsupportedProductError as error:  # an ApiError too
        raise InputError(f"{address.server} is not Elasticsearch: {_without_secrets(str(error))}") from None
    except ApiError as error:
        raise _translated(address, error.status_code, *_error_of(error.body)) from None
    except SerializationError:
        raise _malformed(address, "it is not JSON") from None
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
    """A text that the server or the client made, without what authenticates us."""
    for name in (_KEY, _PASSWORD):
        if secret := os.environ.get(name):
            text = redact(text, secret, name)
    return text


def _short(error: TransportError) -> str:
    return re.sub(r"^(<[^>]*>|HTTPS?Connection[^:]*(:? *Pool)?\([^)]*\)): ", "", str(error.message)).split("(Caused")[0]


def _translated(address: Address, status: int, kind: str, reason: str) -> R1Error:
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
    return _refusal(address, status, kind, reason)


def _refusal(address: Address, status: int, kind: str, reason: str) -> RetrieverError:
    """An error of the server's own. A block with status 503 is that of a node which is still starting."""
    if kind == "cluster_block_exception" and status != 503:
        return RetrieverError(
            f"{address.where} has blocked writing, as it does when its disk is nearly full ({reason}): "
            "free some space; the same command then goes on."
        )
    if 300 <= status < 400:
        return RetrieverError(f"{address.where} redirects, and redirects are not followed: use its final URL")
    return RetrieverError(
        f"{address.where} failed with status {status}: {kind}: {reason}", transient=is_transient(status)
    )


def _error_of(body: Any) -> tuple[str, str]:
    """Kind and reason of an error as Elasticsearch words it, each in one short line."""
    error = body.get("error", body) if isinstance(body, Mapping) else body
    if not isinstance(error, Mapping):
        return "error", _line(error)
    causes = error.get("root_cause")
    first = causes[0] if isinstance(causes, list) and causes and isinstance(causes[0], Mapping) else error
    return _line(first.get("type")), _line(first.get("reason"))


def _line(value: Any) -> str:
    return visible(" ".join(_without_secrets(str(value)[:_LONGEST_ERROR]).split()))[:300]


def _malformed(address: Address, why: str) -> RetrieverError:
    return RetrieverError(f"{address.where} gave an answer that is not Elasticsearch's: {_line(why)}")


def _read(address: Address, model: type[M], body: Any) -> M:
    """An answer of the server. Raises `RetrieverError` where it has another shape."""
    try:
        return model.model_validate(body)
    except ValueError as error:
        raise _malformed(address, first_problem(error)) from None


class _Source(BaseModel):
    id: StrictStr
    title: StrictStr
    text: StrictStr

    @property
    def passage(self) -> Passage:
        return Passage(self.id, self.title, self.text)


class _Hit(BaseModel):
    """`sort` is the score, then the place in the corpus."""

    index: StrictStr = Field(alias="_index")
    source: _Source = Field(alias="_source")
    sort: tuple[FiniteFloat, int]


class _Hits(BaseModel):
    hits: list[_Hit]


class _Shards(BaseModel):
    failed: int


class _Answer(BaseModel):
    """What one query of an msearch found, or its error."""

    error: Any = None
    status: int = 500
    timed_out: bool = False
    shards: _Shards = Field(_Shards(failed=0), alias="_shards")
    hits: _Hits | None = None


class _Answers(BaseModel):
    responses: list[_Answer]


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
    source: _Source | None = Field(None, alias="_source")


class _Documents(BaseModel):
    docs: list[_Document]


class _Count(BaseModel):
    count: int


class _Mappings(BaseModel):
    meta: dict[str, Any] = Field({}, alias="_meta")


class _IndexSettings(BaseModel):
    number_of_shards: int


class _AllSettings(BaseModel):
    index: _IndexSettings


class _State(BaseModel):
    """An index as Elasticsearch describes it."""

    aliases: dict[str, Any]
    mappings: _Mappings
    settings: _AllSettings

    @property
    def ours(self) -> Mapping[str, Any] | None:
        """What this module wrote into the mapping; None in an index of somebody else."""
        meta = self.mappings.meta.get(_META)
        return meta if isinstance(meta, Mapping) else None


class _States(RootModel[dict[str, _State]]):
    """Indexes by name."""


class _Progress(BaseModel):
    """How far an unfinished load has come."""

    settings: dict[str, Any]
    passages: Annotated[int, Field(ge=0)]
    sha256: str


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
                body = self._client.msearch(searches=lines).body
            answers = _read(self._address, _Answers, body).responses
            if len(answers) != len(lines) // 2:
                raise _malformed(self._address, f"{len(answers)} answers to {len(lines) // 2} queries")
            found += [self._hits(answer)[:top_k] for answer in answers]
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

    def _hits(self, answer: _Answer) -> list[Hit]:
        if answer.error is not None:
            raise _translated(self._address, answer.status, *_error_of({"error": answer.error}))
        if answer.timed_out or answer.shards.failed:
            raise RetrieverError(f"{self._address.where} could not search all of its shards.", transient=True)
        if answer.hits is None:
            raise _malformed(self._address, "an answer has no hits")
        hits = []
        for hit in answer.hits.hits:
            label = self._labels.get(hit.index) or self._reload()  # the alias was moved meanwhile
            hits.append(Hit(hit.source.passage, hit.sort[0] / (label.manifest.settings.k1 + 1)))
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


def _indexes(client: Elasticsearch, address: Address, pattern: str, **options: Any) -> dict[str, _State]:
    """Indexes of that name, alias or pattern; none where there is nothing of that name."""
    found = client.options(ignore_status=404).indices.get(index=pattern, **options)
    return {} if found.meta.status == 404 else _read(address, _States, found.body).root


def _read_label(client: Elasticsearch, address: Address) -> _Label:
    found = _indexes(client, address, address.name)
    if not found:
        if _unfinished(client, address):
            raise InputError(
                f"{address.name} at {address.server} is not finished: the command that began it, given again, goes on."
            )
        raise InputError(
            f"{address.where} has no index {address.name}: "
            f"fill it with `r1s index-corpus SOURCE --to es://…/{address.name}`."
        )
    (index, state), *others = found.items()
    manifest = (state.ours or {}).get("manifest")
    if others or not isinstance(manifest, Mapping):
        raise InputError(f"{address.name} at {address.server} was not made by `r1s index-corpus`: choose another name.")
    return _Label(
        index, Manifest.from_json(manifest, f"{address.server}/{index}"), state.settings.index.number_of_shards
    )


def _generations(client: Elasticsearch, address: Address) -> dict[str, _State]:
    """The indexes of ours that a name has had, oldest first."""
    found = _indexes(client, address, f"{address.name}-*", expand_wildcards="all")
    return {
        index: state
        for index, state in sorted(found.items())
        if re.fullmatch(re.escape(address.name) + r"-\d{6}", index) and state.ours is not None
    }


def _unfinished(client: Elasticsearch, address: Address) -> dict[str, Mapping[str, Any]]:
    """Those that the name does not point to, with how far they have come."""
    return {
        index: state.ours or {}
        for index, state in _generations(client, address).items()
        if address.name not in state.aliases
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
    found = _indexes(client, address, address.name)
    if not found:
        return
    if address.name in found or set(found) - set(_generations(client, address)):
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
        self._retries = RetryPolicy(deadline=patience, first_pause=0.2, longest_pause=5.0)
        unfinished = _unfinished(client, address)
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
            self._index, progress = list(unfinished.items())[-1]
            self._progress = _read(address, _Progress, progress).model_dump()
            if self._progress["settings"] != asdict(settings):
                raise self._other_corpus()
        else:
            last = max((int(index[-6:]) for index in _generations(client, address)), default=0)
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
            body = self._retried(lambda: self._client.mget(index=self._index, ids=ids).body)
            found = _read(self._address, _Documents, body).docs
            if [document.source and document.source.passage for document in found] != list(chunk):
                raise self._other_corpus()

    def _bulk(self, lines: Sequence[Any]) -> set[str]:
        """The kinds of error met; only conflicts are left to the caller."""
        body = self._client.bulk(
            index=self._index, operations=lines, filter_path="errors,items.*.error,items.*.status"
        ).body
        answer = _read(self._address, _Bulk, body)
        kinds = set()
        for item in answer.items if answer.errors else []:
            if item.create.error is None:
                continue
            kind, reason = _error_of({"error": item.create.error})
            if kind != "version_conflict_engine_exception":
                raise _refusal(self._address, item.create.status, kind, reason)
            kinds.add(kind)
        return kinds

    def _retried(self, call: Callable[[], T]) -> T:
        """Waits out a server that is busy or away, up to `patience` seconds. Every call made here may be repeated."""

        def work() -> T:
            with _boundary(self._address):
                return call()

        try:
            return self._retries.call(work)
        except RetrieverError as error:
            raise RetrieverError(
                f"{error} What was acknowledged is kept; the same command goes on.", transient=error.transient
            ) from error

    def _finish(self, manifest: Manifest) -> Manifest:
        self._retried(lambda: self._client.indices.refresh(index=self._index))
        body = self._retried(lambda: self._client.count(index=self._index).body)
        count = _read(self._address, _Count, body).count
        if count != manifest.passages:
            raise RetrieverError(
                f"{self._index} holds {count:,} passages of {manifest.passages:,}: it is not put to use; "
                "--restart begins anew."
            )
        self._client.indices.put_settings(index=self._index, settings={"refresh_interval": None})
        self._client.indices.put_mapping(
            index=self._index, meta={_META: {**self._progress, "manifest": manifest.to_json()}}
        )
        old = [index for index in _generations(self._client, self._address) if index < self._index]
        self._client.indices.update_aliases(
            actions=[
                {"add": {"index": self._index, "alias": self._address.name}},
                *({"remove_index": {"index": index}} for index in old),
            ]
        )
        return manifest
