"""Commands that prepare data: `r1s data …`, `r1s simulate …`."""

from pathlib import Path
from typing import Annotated

import typer

from r1searcher.commands.options import (
    DATASETS,
    MODELS,
    DataDir,
    JsonObject,
    Limit,
    ModelOptions,
    RetrieverOption,
    Seed,
    Set,
    command,
    overrides,
)

app = typer.Typer()
_data = typer.Typer(no_args_is_help=True, help="Get questions and traces to train on.")
app.add_typer(_data, name="data", rich_help_panel="Train")
_simulate = typer.Typer(no_args_is_help=True, help="Train the model of a simulated search engine.")
app.add_typer(_simulate, name="simulate", rich_help_panel="Train")
_command = command(_data, "Data")
_simulate_command = command(_simulate, "Simulate")

MinF1 = Annotated[float, typer.Option(min=0, max=1, help="F1 from which an answer counts as right.")]
DataSeed = Annotated[int, typer.Option(help="Random seed of the choice and the order.")]


@_command
def r1_searcher(
    *,
    to: Annotated[Path, typer.Option(help="Folder to write the files to.")],
    from_: Annotated[
        Path | None,
        typer.Option("--from", help="Folder of the release (training_set, eval_set), instead of the hub."),
    ] = None,
) -> None:
    """Get the questions that R1-Searcher's authors released: 350 of stage 1, 8,148 of stage 2, and their evaluation
    sets. They are also datasets by name (r1-searcher:stage1, …), which are downloaded where they are used."""
    from r1searcher.questions.command import write_release

    write_release(to, from_)


@_command
def bootstrap(
    questions: Annotated[str, typer.Argument(help=DATASETS)],
    *,
    to: Annotated[Path, typer.Option(help="File to write the traces to.")],
    questions_to: Annotated[
        Path | None, typer.Option(help="File to write the questions to that gave a trace, to train the stages on.")
    ] = None,
    retriever: RetrieverOption = None,
    model: Annotated[
        str | None, typer.Option(help="Model that the SFT will start from: a Hugging Face folder or name, or demo.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with the settings of the stages.")] = None,
    preset: Annotated[str | None, typer.Option(help="Built-in settings to start from, such as demo.")] = None,
    set_: Set = None,
    data_dir: DataDir = None,
    limit: Limit = None,
    max_traces: Annotated[int | None, typer.Option(min=1, help="Stop after this many traces.")] = None,
    seed: Seed = None,
    json_: JsonObject = False,
) -> None:
    """Write SFT traces for your own questions and corpus, so that a small model can start without hand-written ones."""
    from r1searcher.config.source import SettingsSource
    from r1searcher.traces.bootstrap import BootstrapRequest, run_bootstrap

    flags = {"retrieval.url": retriever, "model.path": model, "seed": seed}
    run_bootstrap(
        BootstrapRequest(
            questions=questions,
            source=SettingsSource(file=config, preset=preset, overrides=overrides(set_, flags)),
            to=to,
            questions_to=questions_to,
            data_dir=data_dir,
            limit=limit,
            max_traces=max_traces,
            as_json=json_,
        )
    )


@_command
def traces(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Runs of stage1 or stage2, evaluations, or predictions files."),
    ],
    *,
    to: Annotated[Path, typer.Option(help="File to write the traces to.")],
    min_f1: MinF1 = 1.0,
    min_searches: Annotated[int, typer.Option(min=0, help="Searches that an episode has at least.")] = 1,
    per_question: Annotated[int, typer.Option(min=1, help="Traces per question at most, the shortest ones.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Write at most N traces.")] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the order.")] = 7,
    json_: JsonObject = False,
) -> None:
    """Keep good episodes as traces: right, in the right format, the shortest of their question. `r1s sft` on them is
    rejection-sampling fine-tuning."""
    from r1searcher.traces.episodes import TracesRequest, run_traces

    run_traces(
        TracesRequest(
            sources=sources,
            to=to,
            min_f1=min_f1,
            min_searches=min_searches,
            per_question=per_question,
            limit=limit,
            seed=seed,
            as_json=json_,
        )
    )


@_command
def split(
    questions: Annotated[str, typer.Argument(help=DATASETS)],
    *,
    part: Annotated[
        list[str],
        typer.Option(help="NAME=0.1, NAME=200, or NAME for all that the other parts leave. Repeatable."),
    ],
    to: Annotated[Path, typer.Option(help="New folder to write a file per part to.")],
    data_dir: DataDir = None,
    limit: Limit = None,
    seed: DataSeed = 7,
    json_: JsonObject = False,
) -> None:
    """Split questions into parts, such as training and held-out ones; equal questions stay in one part."""
    from r1searcher.questions.parts import SplitRequest, run_split

    run_split(
        SplitRequest(questions=questions, parts=part, to=to, data_dir=data_dir, limit=limit, seed=seed, as_json=json_)
    )


@_command
def merge(
    questions: Annotated[list[str], typer.Argument(metavar="QUESTIONS...", help=DATASETS)],
    *,
    to: Annotated[Path, typer.Option(help="File to write the questions to.")],
    each: Annotated[int | None, typer.Option(min=1, metavar="N", help="Take at most N questions of each.")] = None,
    data_dir: DataDir = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Write at most N questions.")] = None,
    seed: DataSeed = 7,
    json_: JsonObject = False,
) -> None:
    """Merge questions into one file in a random order, without repeated ones."""
    from r1searcher.questions.parts import MergeRequest, run_merge

    run_merge(
        MergeRequest(questions=questions, to=to, each=each, data_dir=data_dir, limit=limit, seed=seed, as_json=json_)
    )


@_command
def select(
    questions: Annotated[str, typer.Argument(help=DATASETS)],
    *,
    model: Annotated[str, typer.Option(help=MODELS)],
    to: Annotated[Path, typer.Option(help="Folder to write the questions and the episodes to.")],
    options: ModelOptions,
    samples: Annotated[int, typer.Option(min=1, help="The most attempts per question.")] = 20,
    easy_below: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Easy: fewer attempts. [half of the samples]")
    ] = None,
    hard_above: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Hard: more attempts, or never right. [the samples]")
    ] = None,
    min_f1: MinF1 = 1.0,
    temperature: Annotated[float, typer.Option(min=0, help="Sampling temperature.")] = 1.0,
    data_dir: DataDir = None,
    limit: Limit = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Episodes that run at the same time.")] = 64,
    json_: JsonObject = False,
) -> None:
    """Sort questions into easy, medium and hard ones by the attempts that a right answer takes a model."""
    from r1searcher.evaluation.difficulty import SelectRequest, run_select
    from r1searcher.evaluation.evaluate import EvaluationRequest

    rollouts = EvaluationRequest(
        model=model,
        datasets=[questions],
        to=to,
        data_dir=data_dir,
        limit=limit,
        samples=samples,
        temperature=temperature,
        concurrency=concurrency,
        **options.request(),
    )
    run_select(
        SelectRequest(rollouts=rollouts, easy_below=easy_below, hard_above=hard_above, min_f1=min_f1, as_json=json_)
    )


@_simulate_command
def prepare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Runs of stage1 or stage2.")],
    *,
    to: Annotated[Path, typer.Option(help="File to write the rows to.")],
    min_f1: MinF1 = 0.8,
    max_words: Annotated[int, typer.Option(min=1, help="Words of each document that are kept.")] = 40,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Write at most N rows.")] = None,
    balance: Annotated[bool, typer.Option(help="Write as many useful as noisy rows.")] = True,
    seed: Annotated[int, typer.Option(help="Random seed of the choice and the order.")] = 7,
    json_: JsonObject = False,
) -> None:
    """Turn the searches of recorded episodes into prompts and responses from which a simulated search engine learns to
    write useful or noisy documents."""
    from r1searcher.traces.simulator import PrepareRequest, run_prepare

    run_prepare(
        PrepareRequest(
            runs=runs,
            to=to,
            min_f1=min_f1,
            max_words=max_words,
            limit=limit,
            balance=balance,
            seed=seed,
            as_json=json_,
        )
    )
