"""Options shared by several commands, and the decorator that turns functions with such options into commands.

A dataclass of options is declared once and expanded into the command's own options:

    @command(app, "Train")
    def stage1(options: RLOptions, from_: From = None) -> None: ...
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from r1searcher.questions import datasets

if TYPE_CHECKING:
    from r1searcher.config.source import SettingsSource
    from r1searcher.evaluation.judge import JudgeRequest

Command = Callable[..., None]

DATASETS = f"{', '.join(datasets.DATASETS.builtin)}, or a file of questions."
MODELS = "A run, a Hugging Face folder or name, demo, or the URL of a completions server."

Set = Annotated[list[str] | None, typer.Option("--set", help="Override one setting: section.key=value. Repeatable.")]
Seed = Annotated[int | None, typer.Option(help="Random seed.")]
Retriever = Annotated[str, typer.Argument(help="Index folder or search engine URL.")]
RetrieverOption = Annotated[str | None, typer.Option("--retriever", help="Index folder or search engine URL.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder with the named datasets, instead of the hub.")]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="Use only the first N questions.")]
JsonObject = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of every command that trains."""

    config: Annotated[
        Path | None, typer.Argument(help="TOML file with the settings; docs/settings.md explains each.")
    ] = None
    preset: Annotated[
        str | None, typer.Option(help="Built-in settings to start from, such as demo or paper-qwen-7b.")
    ] = None
    set_: Set = None
    name: Annotated[str | None, typer.Option(help="Name of the run: its folder in the output folder.")] = None
    model: Annotated[str | None, typer.Option(help="Model to start from: a Hugging Face folder or name, or demo.")] = (
        None
    )
    seed: Seed = None

    def flags(self) -> Mapping[str, Any]:
        """The settings that have their own option; None if it was not given."""
        return {"name": self.name, "model.path": self.model, "seed": self.seed}

    def source(self, own: Mapping[str, Any] | None = None) -> "SettingsSource":
        """The sources of the command's settings. `own` are flags of the command itself ("rl.steps" -> 4)."""
        from r1searcher.config.source import SettingsSource

        flags = {**self.flags(), **(own or {})}
        return SettingsSource(file=self.config, preset=self.preset, overrides=overrides(self.set_, flags))


@dataclass(frozen=True, kw_only=True)
class RLOptions(RunOptions):
    """Options of the commands that train with reinforcement learning."""

    data: Annotated[str | None, typer.Option(help="Training questions: a file, or a dataset's name.")] = None
    retriever: RetrieverOption = None

    def flags(self) -> Mapping[str, Any]:
        return {**super().flags(), "data.train": self.data, "retrieval.url": self.retriever}


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """How a model that answers questions is run."""

    retriever: RetrieverOption = None
    served_model: Annotated[str | None, typer.Option(help="For a URL: name of the served model.")] = None
    tokenizer: Annotated[str | None, typer.Option(help="For a URL: folder or name of the model's tokenizer.")] = None
    seed: Seed = None
    set_: Set = None

    def request(self) -> dict[str, Any]:
        """These options as arguments of a `ModelRequest`."""
        return {
            "overrides": overrides(self.set_, {"retrieval.url": self.retriever, "seed": self.seed}),
            "served_model": self.served_model,
            "tokenizer": self.tokenizer,
        }


@dataclass(frozen=True, kw_only=True)
class JudgeOptions:
    """The model that judges answers, if one is requested."""

    judge: Annotated[
        str | None, typer.Option(help="URL of a chat model that judges the answers; its key is in R1S_JUDGE_KEY.")
    ] = None
    judge_model: Annotated[str, typer.Option(help="Name of the judge model at that URL.")] = "gpt-4o-mini"

    def request(self) -> "JudgeRequest | None":
        from r1searcher.evaluation.judge import JudgeRequest

        return JudgeRequest(url=self.judge, model=self.judge_model) if self.judge is not None else None


def overrides(assignments: list[str] | None, flags: Mapping[str, Any]) -> dict[str, Any]:
    """`--set` assignments and flags as settings ("rl.steps" -> 4); a flag overrides an assignment."""
    from r1searcher.config.overrides import from_assignments

    given = {key: value for key, value in flags.items() if value is not None}
    return {**from_assignments(assignments or []), **given}


def command(app: typer.Typer, panel: str) -> Callable[[Command], Command]:
    """Adds a function to `app`, in a panel of its help."""

    def add(function: Command) -> Command:
        app.command(rich_help_panel=panel)(expanded(function))
        return function

    return add


def expanded(function: Command) -> Command:
    """`function` with each parameter that is a dataclass replaced by that dataclass's fields, which Typer reads from
    the signature. All parameters become keyword-only."""
    parameters: list[inspect.Parameter] = []
    bundles: dict[str, type[Any]] = {}
    for parameter in inspect.signature(function).parameters.values():
        bundle = parameter.annotation
        if isinstance(bundle, type) and is_dataclass(bundle):
            bundles[parameter.name] = bundle
            parameters += _parameters_of(bundle)
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @wraps(function)
    def run(**values: Any) -> None:
        bundled = {
            name: bundle(**{field.name: values.pop(field.name) for field in fields(bundle)})
            for name, bundle in bundles.items()
        }
        function(**bundled, **values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def _parameters_of(bundle: type[Any]) -> list[inspect.Parameter]:
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=field.type,
        )
        for field in fields(bundle)
    ]
