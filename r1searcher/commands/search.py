"""Commands for indexes and retrievers."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from r1searcher.commands.options import DATASETS, DataDir, JsonObject, Limit, Retriever, command
from r1searcher.corpora.formats import FORMATS
from r1searcher.corpora.named import CORPORA

app = typer.Typer()
_index = typer.Typer(no_args_is_help=True, help="Move an embedded index: push it, or pull it.")
app.add_typer(_index, name="index", rich_help_panel="Search")
_command = command(app, "Search")
_index_command = command(_index, "Index")

_PLACES = (
    "A folder, an archive (.tar, .tar.gz, .tgz, .tar.zst), or hf://datasets/OWNER/NAME[@REVISION] with the key in "
    "HF_TOKEN."
)


def _dense(help_: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help_, rich_help_panel="Dense index", **more)


_TitleWeight = Annotated[float | None, typer.Option(help="Score the title as a separate field with this boost.")]
_Pooling = Literal["mean", "cls", "last"]
_DenseModel = Annotated[
    str | None,
    _dense(
        "Make vectors with this encoder, a Hugging Face folder or name: a dense index, or vectors in Elasticsearch.",
        metavar="MODEL",
    ),
]
_PoolingOption = Annotated[
    _Pooling | None, _dense("mean, cls or last. [that of the model's files, or of its family: E5, BGE]")
]
_QueryPrefix = Annotated[str | None, _dense("Text before each query. [as pooling]")]
_PassagePrefix = Annotated[str | None, _dense("Text before each passage. [as pooling]")]
_MaxLength = Annotated[int | None, _dense("Tokens of a passage that are read. [as pooling, or 512]", min=8)]
_Vectors = Annotated[
    Literal["float32", "float16", "int8"], _dense("Numbers of the vectors in the index: float32, float16 or int8.")
]
_RemoteCode = Annotated[bool, _dense("Run Python code that comes with the encoder.", "--trust-remote-code")]


@_command
def index_corpus(
    source: Annotated[
        str,
        typer.Argument(
            help=f"File, folder, `-` for standard input, or a named corpus: {', '.join(CORPORA.builtin)}. "
            "See docs/retrieval.md."
        ),
    ],
    *,
    to: Annotated[
        str, typer.Option(help="Index to write: a folder, es://host:9200/name or opensearch://host:9200/name.")
    ],
    format_: Annotated[
        str | None,
        typer.Option("--format", help=f"Format of the corpus, if not detected: {', '.join(FORMATS.builtin)}."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Use only the first N passages.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a finished index.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Discard an interrupted build.")] = False,
    rejects: Annotated[Path | None, typer.Option(help="File for malformed rows. [TO.rejects.jsonl]")] = None,
    bad_rows: Annotated[int, typer.Option(min=0, help="Abort after more than this many malformed rows.")] = 100,
    analyzer: Annotated[str, typer.Option(help="english, or standard for other languages.")] = "english",
    k1: Annotated[float, typer.Option(help="BM25's k1; other values need Elasticsearch or OpenSearch.")] = 1.2,
    b: Annotated[float, typer.Option(help="BM25's b; other values need Elasticsearch or OpenSearch.")] = 0.75,
    title_weight: _TitleWeight = None,
    shards: Annotated[int, typer.Option(min=1, help="Number of shards on a server.")] = 1,
    dense: _DenseModel = None,
    pooling: _PoolingOption = None,
    query_prefix: _QueryPrefix = None,
    passage_prefix: _PassagePrefix = None,
    max_length: _MaxLength = None,
    vectors: _Vectors = "float16",
    device: Annotated[str, _dense("Device of the encoder: cpu, cuda, …")] = "cpu",
    batch_size: Annotated[int, _dense("Passages per forward pass.", min=1)] = 64,
    trust_remote_code: _RemoteCode = False,
) -> None:
    """Build a search index from a corpus."""
    from r1searcher.retrieval.indexing import command
    from r1searcher.retrieval.indexing.base import IndexOptions
    from r1searcher.retrieval.indexing.manifest import IndexSettings

    options = IndexOptions(
        settings=IndexSettings(analyzer, k1, b, title_weight),
        overwrite=overwrite,
        restart=restart,
        shards=shards,
        dense=_dense_options(
            dense, pooling, query_prefix, passage_prefix, max_length, (vectors, device, batch_size, trust_remote_code)
        ),
    )
    command.index_corpus(
        command.IndexRequest(
            source=source, to=to, options=options, format_=format_, limit=limit, rejects=rejects, bad_rows=bad_rows
        )
    )


def _dense_options(
    model: str | None,
    pooling: _Pooling | None,
    query_prefix: str | None,
    passage_prefix: str | None,
    max_length: int | None,
    storage: tuple[Any, ...],
) -> Any:
    """The options of a dense index; None without a model."""
    from r1searcher.retrieval.indexing.base import DenseOptions
    from r1searcher.retrieval.neural.encoder import settings_for

    return model and DenseOptions(settings_for(model, pooling, query_prefix, passage_prefix, max_length), *storage)


@_index_command
def push(
    folder: Annotated[Path, typer.Argument(help="Folder of the index.")],
    target: Annotated[str, typer.Argument(help=f"{_PLACES} A new dataset repository is private.")],
    *,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Copy an index with its manifest and checksums to somewhere else. Every file is checked."""
    from r1searcher.retrieval.indexing import command

    command.push_index(folder, target, overwrite)


@_index_command
def pull(
    source: Annotated[str, typer.Argument(help=_PLACES)],
    folder: Annotated[Path, typer.Argument(help="Folder to create.")],
    *,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the index that is there.")] = False,
) -> None:
    """Get an index from somewhere else. Every file is checked before the folder gets its name."""
    from r1searcher.retrieval.indexing import command

    command.pull_index(source, folder, overwrite)


@_command
def search(
    retriever: Retriever,
    query: Annotated[str | None, typer.Argument(help="The query.")] = None,
    queries: Annotated[Path | None, typer.Option(help="File of queries, one per line; `-` is standard input.")] = None,
    top_k: Annotated[int, typer.Option(min=1, max=1000, help="Passages per query.")] = 5,
    explain: Annotated[bool, typer.Option(help="Also print what each part of the retriever took.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON line per query: [[id, score], …].")] = False,
) -> None:
    """Run queries against a retriever."""
    from r1searcher.retrieval import commands

    commands.search(retriever, query, queries, top_k, json_, explain)


@_command
def serve(
    retriever: Retriever,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on. There is no access control.")] = "127.0.0.1",
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, help="Number of processes. [one per core, at most 8]")
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="Another name that clients may use for the server, such as a proxy's. Repeatable."),
    ] = None,
    mcp: Annotated[
        Literal["stdio", "http"] | None,
        typer.Option(help="Be an MCP server instead: on standard input and output, or at http://HOST:PORT/mcp."),
    ] = None,
) -> None:
    """Serve a retriever over HTTP: Search-R1's /retrieve, R1-Searcher's /queries, ASearcher's /access, /health."""
    from r1searcher.retrieval import commands

    listening = commands.Listening(host=host, port=port, allowed_hosts=allowed_host or (), workers=workers)
    if mcp == "stdio":
        commands.serve_mcp_stdio(retriever, listening)
    elif mcp == "http":
        commands.serve_mcp(retriever, listening)
    else:
        commands.serve(retriever, listening)


@_command
def recall(
    retrievers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RETRIEVER",
            help="Index folders, search engine URLs or chains, each also as NAME=URL. The others are compared with the "
            "first one.",
        ),
    ] = None,
    *,
    dataset: Annotated[str, typer.Option(help=DATASETS)],
    config: Annotated[Path | None, typer.Option(help="TOML file with a table of settings per retriever.")] = None,
    exhaustive: Annotated[
        str | None,
        typer.Option(
            metavar="CORPUS",
            help="Also read this corpus or index folder, for questions whose answer is in no passage.",
        ),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Image to write: .png, .svg or .pdf.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="JSON file to write: all figures, and the ranks of each question.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=1024, help="Number of searches at the same time.")] = 1,
    data_dir: DataDir = None,
    limit: Limit = None,
    json_: JsonObject = False,
) -> None:
    """Measure how often retrievers find the answers, before training with one of them."""
    from r1searcher.evaluation.recall_command import RecallRequest, run_recall

    run_recall(
        RecallRequest(
            retrievers=retrievers or [],
            config=config,
            dataset=dataset,
            data_dir=data_dir,
            limit=limit,
            concurrency=concurrency,
            exhaustive=exhaustive,
            plot=plot,
            output=output,
            as_json=json_,
        )
    )
