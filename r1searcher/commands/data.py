"""Commands that prepare data: `r1s data …`."""

from pathlib import Path
from typing import Annotated

import typer

from r1searcher.commands.options import command

app = typer.Typer()
_data = typer.Typer(no_args_is_help=True, help="Get questions to train on.")
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
