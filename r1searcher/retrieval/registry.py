"""Search engines by kind, and from a URL or a table of settings to an open retriever; the same in every command.

A package of somebody else adds an engine with an entry point:

    [project.entry-points."r1searcher.retrievers"]
    mine = "my_package.retriever:Settings"

`mine:anything` and `mine://anything` are retriever URLs then, and `kind = "mine"` works in `[retrieval]`.
"""

import re
from typing import Any

from pydantic import ValidationError

from r1searcher.common.http import shown_url
from r1searcher.common.registry import Registry
from r1searcher.config.settings import Retrieval, explain
from r1searcher.errors import InputError
from r1searcher.retrieval.base import EngineSettings, Retriever

RETRIEVERS: Registry[type[EngineSettings]] = Registry(
    "retriever",
    "r1searcher.retrievers",
    {
        "bm25": "r1searcher.retrieval.engines.bm25:Settings",
        "es": "r1searcher.retrieval.engines.elasticsearch:Settings",
        "http": "r1searcher.retrieval.engines.http:Settings",
    },
)

_OTHER_SCHEMES = {"file": "bm25", "es+https": "es", "https": "http"}
"""URL schemes that are not the name of their kind."""

Spec = str | Retrieval
"""Which retriever: a URL, or the table `[retrieval]` of the settings."""


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


def settings_of(spec: Spec) -> EngineSettings:
    """The settings of the engine that a URL or a table names, checked by the engine's own model.

    Raises `InputError` with every wrong key, as for other settings.
    """
    if isinstance(spec, str):
        kind, table = kind_of(spec), {"url": spec}
    elif spec.kind:
        kind, table = spec.kind, {**({"url": spec.url} if spec.url else {}), **(spec.model_extra or {})}
    else:
        kind, table = kind_of(spec.url), {"url": spec.url}
    model = RETRIEVERS.require(kind, "retrieval.kind")
    try:
        return model.model_validate({"kind": kind, **table})
    except ValidationError as error:
        raise InputError(explain(error, f"[retrieval] of kind {kind}", model, "retrieval.")) from None


def open_retriever(spec: Spec) -> Retriever:
    """The retriever of a URL or of the settings' table `[retrieval]`.

    - `index/` or `file:index/`: an embedded index;
    - `es://host:9200/name`, `es+https://…`: Elasticsearch, filled by `r1s index-corpus`;
    - `http://host:8000/retrieve`: a server that speaks Search-R1's protocol;
    - `http://host:8000/queries`: one that speaks R1-Searcher's;
    - `KIND:…`: an engine of that name from another package.

    Raises `InputError` for a URL of no such form, wrong settings, and an embedded index that is missing or damaged.
    """
    return settings_of(spec).open()


def described(spec: Spec) -> dict[str, Any]:
    """Kind, URL and further settings of an engine as a manifest keeps them: without what is secret in a URL."""
    settings = settings_of(spec)
    return {**settings.model_dump(mode="json", exclude_unset=True), "url": shown_url(settings.url)}


def environment_variables(spec: Spec) -> tuple[str, ...]:
    """Names of the environment variables that the engine of a run reads: what its workers must be given."""
    return settings_of(spec).environment
