"""A check item, its input, and its result.

A check is a function of `StageInputs` that raises an `R1Error` with the sentence of the problem:

    def run(inputs: StageInputs) -> None:
        if shutil.disk_usage(inputs.settings.output).free < 50 << 30:
            raise InputError("output: less than 50 GB are free there; choose another folder")

    enough_disk = Check(run)

Another package adds it with an entry point of the group `r1searcher.checks`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from r1searcher.config.settings import STAGES, Settings, Stage
from r1searcher.engine.topology import Topology
from r1searcher.episodes.protocol import EpisodeProtocol
from r1searcher.errors import InputError
from r1searcher.questions.named import Dataset
from r1searcher.questions.traces import Exchange, Trace
from r1searcher.retrieval.base import Health
from r1searcher.runs.folder import RunFolder

RL_STAGES: tuple[Stage, ...] = ("stage1", "stage2")


class Status(StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check. `message` is the problem, what was found, or why the check was skipped."""

    name: str
    status: Status
    message: str = ""


@dataclass(slots=True)
class StageInputs:
    """The stage to be checked. Each check adds what it opened, so that nothing is opened twice."""

    stage: Stage
    settings: Settings

    topology: Topology | None = None
    train: Dataset | None = None
    held_out: Dataset | None = None
    traces: Sequence[Trace | Exchange] = ()
    health: Health | None = None
    """What the retriever says about itself."""

    protocol: EpisodeProtocol | None = None

    prompt: str = ""
    """The text of the prompt, with a placeholder for the question."""

    model: str = ""
    """The model's folder, or its name on the hub."""

    prompts: Sequence[str] = ()
    """One prompt per question of `train`, in their order."""

    tokenizer: Any = None
    """Of transformers, of the model."""

    queries: int = 20
    """Searches that thorough checks may make."""

    @property
    def run(self) -> RunFolder:
        """The folder of the stage's run, which may not exist yet."""
        return RunFolder(Path(self.settings.output, self.settings.name or self.stage).resolve())


@dataclass(frozen=True, slots=True)
class Found:
    """What a check found that is not a problem: a sentence about what is in order, and warnings."""

    said: str = ""
    warnings: tuple[str, ...] = ()


class Skip(Exception):
    """Raised by a check that does not apply, with the reason."""


@dataclass(frozen=True, slots=True)
class Check:
    """One item. `run` raises an `R1Error` for a problem, and `Skip` if there is nothing to check.

    `costly` items (a download, a tokenizer) run after the others, and only if none of those found a problem.
    `thorough` ones run only in `r1s check`, not before a stage.
    """

    run: Callable[[StageInputs], Found | None]
    stages: tuple[Stage, ...] = STAGES
    costly: bool = False
    thorough: bool = False


def require_setting(key: str, value: str, what: str) -> None:
    """Raises `InputError` for a setting that is empty; `what` describes its value."""
    if not value:
        raise InputError(f"{key} is not set: give {what} in the settings file or with --set {key}=…")
