"""The interface of trackers.

Another package adds one with an entry point:

    [project.entry-points."r1searcher.trackers"]
    mine = "my_package.tracker:Settings"

`tracking.mine = true` starts it then, and a table `[tracking.mine]` has its settings.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Protocol

from r1searcher.common.registry import Registry
from r1searcher.common.section import Section
from r1searcher.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedRun:
    """The run that a tracker shows. `id` stays the same when the run is resumed; a tracker may write to `folder`."""

    id: str
    name: str
    folder: Path
    config: Mapping[str, Any]


class Tracker(Protocol):
    """An open run of a tracker. It runs in a process of its own: it may block, and may raise anything."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of a step, by their names in `metrics.jsonl`. A resumed run may log a step again."""
        ...

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Send what is left. `summary` is that of a finished stage (`summary.json`), otherwise empty; held-out results
        are in it as `held_out/f1` and `held_out/greedy/f1`."""
        ...


class TrackerSettings(Section, ABC):
    """A table of `[tracking]`. API keys are not settings: they come from the environment."""

    package: ClassVar[str]
    """The Python package that `open` imports."""

    @abstractmethod
    def open(self, run: TrackedRun) -> Tracker:
        """Start or resume the tracker's run. May raise anything."""

    def check(self, name: str) -> None:
        """Called before a run starts. Raises `InputError` with what is missing; `name` is that of the table."""
        if find_spec(self.package) is None:
            raise InputError(
                f"tracking.{name}: the package {self.package} is not installed: run `pip install {self.package}`, or "
                f"set tracking.{name} = false"
            )


TRACKERS: Registry[type[TrackerSettings]] = Registry(
    "tracker",
    "r1searcher.trackers",
    {"wandb": "r1searcher.tracking.wandb:Wandb", "trackio": "r1searcher.tracking.trackio:Trackio"},
)
