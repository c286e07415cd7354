"""Commands that prepare data: `r1s data …`."""

from pathlib import Path
from typing import Annotated

import typer

from r1searcher.commands.options import (
    DATASETS,
    DataDir,
    JsonObject,
    Limit,
    RetrieverOption,
    Seed,
    Set,
    command,
    overrides,
)

app = typer.Typer()
_data = typer.Typer(no_args_is_help=True, help="Get questions and traces to train on.")
app.add_typer(_data, name="data", rich_help_panel="Train")
_command = command(_data, "Data")


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
