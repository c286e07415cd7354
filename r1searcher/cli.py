"""The command line: one function a command. Parses, calls one function, prints; heavy imports stay inside."""

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from r1searcher import __version__
from r1searcher.common import last_resort
from r1searcher.common.terminal import text_line
from r1searcher.errors import InputError
from r1searcher.questions import datasets

app = typer.Typer(
    name="r1s",
    help="Teach language models to search, by reinforcement learning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

SettingsFile = Annotated[Path | None, typer.Argument(help="Settings in one TOML file; see docs/settings.md.")]
Preset = Annotated[str | None, typer.Option(help="Settings that come with r1s: demo, paper-qwen-7b, …")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Override one setting: section.key=value. Repeatable.")]
Name = Annotated[str | None, typer.Option(help="Name of the run, its folder below the output folder.")]
ModelPath = Annotated[str | None, typer.Option("--model", help="Hugging Face folder or name to start from, or demo.")]
Questions = Annotated[str | None, typer.Option("--data", help="File of training questions, or a dataset's name.")]
RetrieverUrl = Annotated[str | None, typer.Option("--retriever", help="Index folder or search engine URL.")]
Steps = Annotated[int | None, typer.Option(help="Steps of the stage.")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything drawn at random.")]
DATASETS = f"{', '.join(datasets.DATASETS.builtin)}, or a file of questions."
MODELS = "A run, a Hugging Face folder or name, demo, or a completions URL."
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Folder with the named datasets, instead of the hub.")]
From = Annotated[Path | None, typer.Option("--from", help="Start from this run's model.")]


def _version(wanted: bool) -> None:
    if wanted:
        text_line(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def _overrides(set_: list[str] | None, **flags: Any) -> dict[str, Any]:
    """Flags and `--set` as dotted keys with values; the flags are shorthands of the same settings (`rl__steps`)."""
    from r1searcher.config.overrides import from_assignments, given

    return {**from_assignments(set_ or []), **given(**flags)}


@app.command(rich_help_panel="Train")
def init(
    file: Annotated[Path, typer.Argument(help="New settings file.")] = Path("settings.toml"),
) -> None:
    """Write a settings file to start from, every key with its meaning."""
    from r1searcher.config.template import write_template

    write_template(file)
    text_line(f"{file}: set model.path, data.train and retrieval.url, then `r1s stage1 {file}`")


@app.command(rich_help_panel="Train")
def sft(
    config: SettingsFile = None,
    preset: Preset = None,
    set_: Set = None,
    name: Name = None,
    model: ModelPath = None,
    steps: Steps = None,
    seed: Seed = None,
) -> None:
    """Warm a model up on traces, so that it knows the protocol's shape."""
    from r1searcher.stages.sft import run_sft

    run_sft(config, preset, _overrides(set_, name=name, model__path=model, warmup__steps=steps, seed=seed))


@app.command(rich_help_panel="Train")
def stage1(
    config: SettingsFile = None,
    preset: Preset = None,
    from_: From = None,
    set_: Set = None,
    name: Name = None,
    model: ModelPath = None,
    data: Questions = None,
    retriever: RetrieverUrl = None,
    steps: Steps = None,
    seed: Seed = None,
) -> None:
    """Stage 1: learn to call the search engine (retrieval and format reward)."""
    from r1searcher.stages.stage import run_stage

    overrides = _overrides(
        set_, name=name, model__path=model, data__train=data, retrieval__url=retriever, rl__steps=steps, seed=seed
    )
    run_stage("stage1", config, preset, overrides, from_)


@app.command(rich_help_panel="Train")
def stage2(
    config: SettingsFile = None,
    preset: Preset = None,
    from_: From = None,
    set_: Set = None,
    name: Name = None,
    model: ModelPath = None,
    data: Questions = None,
    retriever: RetrieverUrl = None,
    steps: Steps = None,
    seed: Seed = None,
) -> None:
    """Stage 2: learn to use what was found (answer F1 and a stricter format)."""
    from r1searcher.stages.stage import run_stage

    overrides = _overrides(
        set_, name=name, model__path=model, data__train=data, retrieval__url=retriever, rl__steps=steps, seed=seed
    )
    run_stage("stage2", config, preset, overrides, from_)


@app.command(rich_help_panel="Train")
def train(
    config: SettingsFile = None,
    preset: Preset = None,
    set_: Set = None,
    name: Name = None,
    model: ModelPath = None,
    data: Questions = None,
    retriever: RetrieverUrl = None,
    seed: Seed = None,
) -> None:
    """Both stages, one after the other."""
    from r1searcher.stages.chain import run_chain

    overrides = _overrides(set_, name=name, model__path=model, data__train=data, retrieval__url=retriever, seed=seed)
    run_chain(config, preset, overrides)


@app.command(rich_help_panel="Train")
def demo(
    output: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the world, the traces and the training.")] = 7,
    contrast: Annotated[bool, typer.Option("--contrast", help="Stage 2 alone, from the same SFT.")] = False,
    set_: Set = None,
) -> None:
    """Watch a real 135M model learn to search in an invented atlas, on a laptop's CPU."""
    from r1searcher.demo.run import run_demo

    run_demo(output, seed, contrast, _overrides(set_))


@app.command(rich_help_panel="Search")
def index_corpus(
    source: Annotated[
        str, typer.Argument(help="File, folder, `-`, or hotpotqa-abstracts, kilt-100w, wiki-18. See docs/retrieval.md.")
    ],
    to: Annotated[str, typer.Option(help="Where to: a folder, or es://host:9200/name.")],
    format_: Annotated[
        str | None, typer.Option("--format", help="Name the format instead of detecting it: jsonl, r1-searcher, …")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many passages.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a finished index.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Throw away an interrupted build.")] = False,
    rejects: Annotated[Path | None, typer.Option(help="File for rows that are no passages. [TO.rejects.jsonl]")] = None,
    bad_rows: Annotated[int, typer.Option(min=0, help="Such rows before the command stops.")] = 100,
    analyzer: Annotated[str, typer.Option(help="english, or standard for other languages.")] = "english",
    k1: Annotated[float, typer.Option(help="BM25's k1; other values need Elasticsearch.")] = 1.2,
    b: Annotated[float, typer.Option(help="BM25's b; other values need Elasticsearch.")] = 0.75,
    title_weight: Annotated[
        float | None, typer.Option(help="Keep title and text apart and count the title so many times.")
    ] = None,
    shards: Annotated[int, typer.Option(min=1, help="Shards, in Elasticsearch.")] = 1,
) -> None:
    """Make a corpus searchable."""
    from r1searcher.retrieval.indexing.base import IndexOptions
    from r1searcher.retrieval.indexing.command import IndexRequest, index_corpus
    from r1searcher.retrieval.indexing.manifest import IndexSettings

    ranking = IndexSettings(analyzer, k1, b, title_weight)
    index_corpus(
        IndexRequest(
            source=source,
            to=to,
            options=IndexOptions(settings=ranking, overwrite=overwrite, restart=restart, shards=shards),
            format_=format_,
            limit=limit,
            rejects=rejects,
            bad_rows=bad_rows,
        )
    )


@app.command(rich_help_panel="Search")
def search(
    retriever: Annotated[str, typer.Argument(help="Index folder or search engine URL.")],
    query: Annotated[str | None, typer.Argument(help="What to look for.")] = None,
    queries: Annotated[Path | None, typer.Option(help="File of queries, one per line; `-` is standard input.")] = None,
    top_k: Annotated[int, typer.Option(min=1, max=1000, help="Passages per query.")] = 5,
    json_: Annotated[bool, typer.Option("--json", help="A line per query: [[id, score], …].")] = False,
) -> None:
    """Ask a search engine."""
    from r1searcher.retrieval import commands

    commands.search(retriever, query, queries, top_k, json_)


@app.command(rich_help_panel="Search")
def serve(
    retriever: Annotated[str, typer.Argument(help="Index folder or search engine URL.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on. There is no access control.")] = "127.0.0.1",
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, help="Processes; one per core, at most 8, if left out.")
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="A further name that clients may call the server by, such as a proxy's. Repeatable."),
    ] = None,
) -> None:
    """Serve a search engine over HTTP: Search-R1's /retrieve, R1-Searcher's /queries, ASearcher's /access, /health."""
    from r1searcher.retrieval import commands

    commands.serve(retriever, host, port, workers, allowed_host or [])


@app.command(rich_help_panel="Search")
def recall(
    retriever: Annotated[str, typer.Argument(help="Index folder or search engine URL.")],
    dataset: Annotated[str, typer.Option(help=DATASETS)],
    data_dir: DataDir = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many questions.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """See whether a search engine finds the answers, before anything is trained on it."""
    from r1searcher.evaluation.recall import run_recall

    run_recall(retriever, dataset, data_dir, limit, json_)


@app.command(rich_help_panel="Evaluate")
def evaluate(
    model: Annotated[str, typer.Argument(help=MODELS)],
    dataset: Annotated[list[str], typer.Option(help=f"{DATASETS} Repeatable.")],
    retriever: RetrieverUrl = None,
    to: Annotated[Path | None, typer.Option(help="Folder of the report; below runs/evaluate where not given.")] = None,
    data_dir: DataDir = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many questions.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Answers sampled a question, for pass@k and mean@k.")] = 1,
    temperature: Annotated[float | None, typer.Option(min=0, help="0 unless several answers are sampled.")] = None,
    judge: Annotated[
        str | None, typer.Option(help="URL of a chat model that judges; its key from R1S_JUDGE_KEY.")
    ] = None,
    judge_model: Annotated[str, typer.Option(help="The judge's name at its URL.")] = "gpt-4o-mini",
    served_model: Annotated[str | None, typer.Option(help="For a URL: the model's name there.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="For a URL: folder or name of the model's tokenizer.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Episodes at once; with 1, greedy tokens repeat.")] = 64,
    seed: Seed = None,
    set_: Set = None,
) -> None:
    """Play a dataset's questions and report how good the answers are, and how sure that is."""
    from r1searcher.evaluation.commands import run_evaluate
    from r1searcher.evaluation.evaluate import EvaluationRequest

    run_evaluate(
        EvaluationRequest(
            model=model,
            datasets=dataset,
            to=to,
            data_dir=data_dir,
            limit=limit,
            samples=samples,
            temperature=temperature,
            overrides=_overrides(set_, retrieval__url=retriever, seed=seed),
            tokenizer=tokenizer,
            served_model=served_model,
            judge=judge,
            judge_model=judge_model,
            concurrency=concurrency,
        )
    )


@app.command(rich_help_panel="Evaluate")
def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    model: Annotated[str, typer.Option(help=MODELS)],
    retriever: RetrieverUrl = None,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest token each time.")] = 0.0,
    served_model: Annotated[str | None, typer.Option(help="For a URL: the model's name there.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="For a URL: folder or name of the model's tokenizer.")] = None,
    seed: Seed = None,
    set_: Set = None,
) -> None:
    """Ask one question and watch the model think, search and answer."""
    from r1searcher.evaluation.commands import AskRequest, run_ask

    run_ask(
        AskRequest(
            question=question,
            model=model,
            overrides=_overrides(set_, retrieval__url=retriever, seed=seed),
            temperature=temperature,
            served_model=served_model,
            tokenizer=tokenizer,
        )
    )


@app.command(rich_help_panel="Evaluate")
def score(
    predictions: Annotated[list[Path], typer.Argument(help="JSONL of predictions: ours, or released ones.")],
    json_: Annotated[bool, typer.Option("--json", help="One JSON object per file and dataset.")] = False,
    judge: Annotated[
        str | None, typer.Option(help="URL of a chat model that judges anew; key from R1S_JUDGE_KEY.")
    ] = None,
    judge_model: Annotated[str, typer.Option(help="The judge's name at its URL.")] = "gpt-4o-mini",
    dataset: Annotated[
        str | None, typer.Option(help="Dataset of all rows, for its official metric; otherwise rows or file name say.")
    ] = None,
) -> None:
    """Score predictions made anywhere: EM, F1, cover EM, official metrics, judge, with 95 % intervals."""
    from r1searcher.evaluation.commands import print_scores

    print_scores(predictions, json_, judge, judge_model, dataset)


@app.command(rich_help_panel="Evaluate")
def compare(
    a: Annotated[Path, typer.Argument(help="JSONL of predictions.")],
    b: Annotated[Path, typer.Argument(help="JSONL of predictions on the same questions.")],
    json_: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    dataset: Annotated[
        str | None, typer.Option(help="Dataset of all rows, for its official metric; otherwise rows or file name say.")
    ] = None,
) -> None:
    """Test whether B differs from A by more than noise (paired bootstrap, question by question)."""
    from r1searcher.evaluation.commands import print_comparison

    print_comparison(a, b, json_, dataset)


@app.command(rich_help_panel="Evaluate")
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a run or of an evaluation.")],
    step: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Of a run: a step whose trajectories are shown. Repeatable. [first and last]"),
    ] = None,
    to: Annotated[Path | None, typer.Option(help="Folder of the report. [FOLDER]")] = None,
) -> None:
    """Write report.html, report.md and report.json of a run or an evaluation."""
    from r1searcher.evaluation.reports import run_report

    run_report(folder, step or [], to)


def _command() -> int:
    """Run the command of `sys.argv`; returns its exit code. A usage error becomes an `InputError`."""
    try:
        code = app(prog_name="r1s", standalone_mode=False)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except typer.TyperException as error:  # every usage error
        usage: Any = error  # what it raises for these has a message and a context, and no public name
        if type(error).__name__ == "NoArgsIsHelpError":
            usage.show()
            return int(usage.exit_code)
        command = usage.ctx.command_path if getattr(usage, "ctx", None) else "r1s"
        raise InputError(f"{usage.format_message().rstrip('.')}; `{command} --help` lists what it takes") from None
    return code if isinstance(code, int) else 0


def main() -> NoReturn:
    """Entry point. Whatever ends a command becomes one sentence and an exit code; see `common.last_resort`."""
    sys.exit(last_resort.run(_command))


if __name__ == "__main__":
    main()
