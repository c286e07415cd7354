"""`r1s`: all commands, and their error handling."""

import sys
from typing import Annotated, Any, NoReturn

import typer

from r1searcher import __version__
from r1searcher.commands import data, evaluate, search, train
from r1searcher.common import last_resort
from r1searcher.common.terminal import text_line
from r1searcher.errors import InputError

app = typer.Typer(
    name="r1s",
    help="Teach language models to search, with reinforcement learning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for part in (train, data, search, evaluate):
    app.add_typer(part.app)


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


def _command() -> int:
    """Run the command of `sys.argv`; returns its exit code. A usage error becomes an `InputError`."""
    try:
        code = app(prog_name="r1s", standalone_mode=False)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except typer.TyperException as error:  # every usage error
        usage: Any = error  # the exceptions for these have a message and a context, but no public type
        if type(error).__name__ == "NoArgsIsHelpError":
            usage.show()
            return int(usage.exit_code)
        command = usage.ctx.command_path if getattr(usage, "ctx", None) else "r1s"
        raise InputError(f"{usage.format_message().rstrip('.')}; `{command} --help` lists the options") from None
    return code if isinstance(code, int) else 0


def main() -> NoReturn:
    """Entry point. Every error becomes one sentence and an exit code; see `common.last_resort`."""
    sys.exit(last_resort.run(_command))


if __name__ == "__main__":
    main()
