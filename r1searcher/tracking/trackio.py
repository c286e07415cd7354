"""Trackio (https://huggingface.co/docs/trackio): W&B's interface over a local SQLite file or a Hugging Face Space."""

from collections.abc import Mapping
from typing import Any, ClassVar

from r1searcher.tracking.base import TrackedRun, TrackerSettings


class Trackio(TrackerSettings):
    """Trackio."""

    package: ClassVar[str] = "trackio"

    project: str = "r1searcher"
    """Project of the run."""

    group: str | None = None
    """Group of runs."""

    space_id: str | None = None
    """Hugging Face Space that shows the project (OWNER/NAME); TRACKIO_SPACE_ID, or this machine if not set."""

    def open(self, run: TrackedRun) -> "TrackioRun":
        import trackio

        opened = trackio.init(
            project=self.project,
            name=f"{run.name}-{run.id[:8]}",  # a run is resumed by its name
            group=self.group,
            space_id=self.space_id,
            config=dict(run.config),
            resume="allow",
            embed=False,
        )
        return TrackioRun(opened)


class TrackioRun:
    def __init__(self, run: Any) -> None:
        self._run, self._step = run, 0

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._step = step
        self._run.log(dict(metrics), step=step)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Trackio has no summary: its numbers are another row of the last step."""
        numbers = {key: value for key, value in summary.items() if isinstance(value, (int, float))}
        if numbers:
            self._run.log(numbers, step=self._step)
        self._run.finish()
