"""Weights & Biases (https://docs.wandb.ai/ref/python/init)."""

import netrc
import os
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field

from r1searcher.errors import InputError
from r1searcher.tracking.base import TrackedRun, TrackerSettings

_KEYS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")


class Wandb(TrackerSettings):
    """Weights & Biases."""

    package: ClassVar[str] = "wandb"

    project: str = "r1searcher"
    """Project of the run."""

    entity: str | None = None
    """User or team; that of the API key if not set."""

    mode: Literal["online", "offline"] | None = None
    """offline writes to the run folder, for `wandb sync`; WANDB_MODE or online if not set."""

    group: str | None = None
    """Group of runs."""

    tags: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Tags of the run."""

    def check(self, name: str) -> None:
        super().check(name)
        mode = self.mode or os.environ.get("WANDB_MODE") or "online"
        if mode == "online" and not any(map(os.environ.get, _KEYS)) and not _in_netrc():
            raise InputError(
                f"tracking.{name}: there is no API key: set the environment variable WANDB_API_KEY, run `wandb login`, "
                f'or set tracking.{name}.mode = "offline"'
            )

    def open(self, run: TrackedRun) -> "WandbRun":
        import wandb

        opened = wandb.init(
            project=self.project,
            entity=self.entity,
            mode=self.mode,
            group=self.group,
            tags=self.tags,
            id=run.id,
            name=run.name,
            resume="allow",
            dir=str(run.folder),
            config=dict(run.config),
            settings=wandb.Settings(console="off", disable_git=True, disable_code=True),
        )
        return WandbRun(opened)


class WandbRun:
    def __init__(self, run: Any) -> None:
        self._run = run
        # W&B's own step only grows, and drops rows of steps that are trained again after a resume.
        run.define_metric("step")
        run.define_metric("*", step_metric="step")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log({"step": step, **metrics})

    def finish(self, summary: Mapping[str, Any]) -> None:
        self._run.summary.update(dict(summary))
        self._run.finish()


def _in_netrc() -> bool:
    """Whether the user's netrc file has a key for the server, as W&B reads it."""
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").netloc
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
