"""Search engines and links by kind, and from a URL or a table of settings to an open retriever; the same in every
command.

A chain of retrievers is a URL too: `A + B -> fusion -> cache:FILE`, or a table whose key `of` is another retriever.

Another package adds an engine with an entry point:

    [project.entry-points."r1searcher.retrievers"]
    mine = "my_package.retriever:Settings"

`mine:anything` and `mine://anything` are retriever URLs then, and `kind = "mine"` works in `[retrieval]`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from r1searcher.common.http import shown_url
from r1searcher.common.records import problem_in
from r1searcher.common.registry import Registry
from r1searcher.errors import InputError
from r1searcher.retrieval.base import EngineSettings, Retriever
from r1searcher.retrieval.indexing.manifest import folder_of, kind_of_index

RETRIEVERS: Registry[type[EngineSettings]] = Registry(
    "retriever",
    "r1searcher.retrievers",
    {
        "bm25": "r1searcher.retrieval.engines.bm25:Settings",
        "dense": "r1searcher.retrieval.engines.dense:Settings",
        "es": "r1searcher.retrieval.engines.elasticsearch:Settings",
        "opensearch": "r1searcher.retrieval.engines.opensearch:Settings",
        "http": "r1searcher.retrieval.engines.http:Settings",
        "simulated": "r1searcher.retrieval.engines.simulated:Settings",
        "web": "r1searcher.retrieval.engines.web:Settings",
        "fusion": "r1searcher.retrieval.links.fusion:Settings",
        "rerank": "r1searcher.retrieval.links.rerank:Settings",
        "pages": "r1searcher.retrieval.links.pages:Settings",
        "summary": "r1searcher.retrieval.links.summary:Settings",
        "cache": "r1searcher.retrieval.links.cache:Settings",
    },
)

_ARROW, _PLUS = " -> ", " + "

_OTHER_SCHEMES = {"file": "bm25", "es+https": "es", "opensearch+https": "opensearch", "https": "http"}
"""URL schemes that are not the name of their kind."""


def kind_of(url: str) -> str:
    """The kind of a retriever URL; a path is an embedded index. Raises `InputError` for an unknown scheme."""
    scheme, colon, _ = url.partition(":")
    if not colon:
        return "bm25"
    kind = _OTHER_SCHEMES.get(scheme, scheme)
    if re.fullmatch(r"[a-z0-9][a-z0-9_.+-]*", kind) and kind in RETRIEVERS:
        return kind
    if "://" in url:
        raise InputError(
            f"{shown_url(url)} is not a retriever: give a folder, es://host:9200/name or http://host:8000/retrieve"
            + "".join(f", {name}:…" for name in RETRIEVERS if name not in RETRIEVERS.builtin)
        )
    return "bm25"


def settings_of(url: str) -> EngineSettings:
    """The settings that a retriever URL abbreviates. A folder is of the engine that made the index in it.

    Raises `InputError` for an unknown form, and for an engine that needs more settings than a URL.
    """
    if _ARROW in url:
        return _chain(url)
    kind = kind_of(url)
    if kind == "bm25" and kind_of_index(folder := Path(folder_of(url))) == "dense":
        kind, url = "dense", f"dense:{folder}"
    try:
        return settings_of_table(kind, {"url": url})
    except ValidationError as error:
        raise InputError(f"{shown_url(url)} needs keys of [retrieval], kind = {kind!r}: {problem_in(error)}") from None


def links() -> list[str]:
    """The kinds that are around other retrievers."""
    return [kind for kind in RETRIEVERS if "of" in RETRIEVERS[kind].model_fields]


def _chain(url: str) -> EngineSettings:
    """The settings of `SOURCE -> LINK -> LINK:ARGUMENT`, or of `SOURCE + SOURCE -> …`."""
    first, *rest = (part.strip() for part in url.split(_ARROW))
    inner: tuple[EngineSettings, ...] = tuple(settings_of(source.strip()) for source in first.split(_PLUS))
    for link in rest:
        inner = (_link(link, inner),)
    return inner[0]


def _link(link: str, inner: tuple[EngineSettings, ...]) -> EngineSettings:
    kind = link.partition(":")[0]
    if kind not in RETRIEVERS or "of" not in RETRIEVERS[kind].model_fields:
        raise InputError(f"{shown_url(link)!r} after -> is not a link; choose one of {', '.join(links())}")
    several: bool = getattr(RETRIEVERS[kind], "takes_several", False)
    if several != (len(inner) > 1):
        needs = "at least two retrievers, as in A + B" if several else "one retriever: put `-> fusion` before it"
        raise InputError(f"{kind} needs {needs}")
    try:
        return settings_of_table(kind, {"url": link, "of": inner if several else inner[0]})
    except ValidationError as error:
        raise InputError(f"-> {shown_url(link)}: {problem_in(error)}") from None


def settings_of_table(kind: str, table: Mapping[str, Any]) -> EngineSettings:
    """The settings in a table, checked by the model of that kind.

    Raises `InputError` for an unknown kind, and pydantic's `ValidationError` for keys that do not fit it.
    """
    return RETRIEVERS.require(kind, "retrieval.kind").model_validate({"kind": kind, **table})


def open_retriever(engine: str | EngineSettings) -> Retriever:
    """The retriever of a URL, or of settings (`settings.retrieval.engine`).

    - `index/` or `file:index/`: an index in a folder, of BM25 or of vectors;
    - `dense:index/`: an index of vectors, whose settings may be given in a table;
    - `es://host:9200/name`, `es+https://…`: Elasticsearch, filled by `r1s index-corpus`;
    - `es://host:9200/name?fields=title,text`: any other index of Elasticsearch;
    - `opensearch://…`, `opensearch+https://…`: the same with OpenSearch;
    - `http://host:8000/retrieve`: a server that speaks Search-R1's protocol;
    - `http://host:8000/queries`: one that speaks R1-Searcher's;
    - `KIND:…`: an engine of that name from another package;
    - `A + B -> LINK -> LINK:ARGUMENT`: a chain of them.

    Raises `InputError` for a URL of no such form, and for an embedded index that is missing or damaged.
    """
    return (settings_of(engine) if isinstance(engine, str) else engine).open()


def described(engine: EngineSettings) -> dict[str, Any]:
    """Kind, URL and further settings for a manifest: without the secrets in a URL."""
    table = {**engine.model_dump(mode="json", exclude_unset=True), "url": engine.url}
    return {key: _without_secrets(value) for key, value in table.items()} | {"url": shown_url(engine.url)}


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        shown = {key: _without_secrets(item) for key, item in value.items()}
        return {**shown, "url": shown_url(value["url"])} if isinstance(value.get("url"), str) else shown
    return [_without_secrets(item) for item in value] if isinstance(value, list) else value
