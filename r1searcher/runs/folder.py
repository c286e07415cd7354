"""The run folder: the one place that knows where each file of a run is."""

import re
from dataclasses import dataclass
from pathlib import Path

_STEP = re.compile(r"step-(\d{6,9})\.jsonl")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of one stage's run. Nothing is created before it is written."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved settings, as TOML."""
        return self.path / "config.toml"

    @property
    def manifest(self) -> Path:
        """Versions, seeds, hashes of data, index and prompts."""
        return self.path / "manifest.json"

    @property
    def launch(self) -> Path:
        """The engine's command line, to be repeated by hand."""
        return self.path / "launch.sh"

    @property
    def log(self) -> Path:
        """Everything the engine printed."""
        return self.path / "engine.log"

    @property
    def questions(self) -> Path:
        """The engine's prompt dataset: rendered prompts and labels, in training order."""
        return self.path / "questions.jsonl"

    @property
    def metrics(self) -> Path:
        """A row a step."""
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """The trained model in Hugging Face format."""
        return self.path / "model"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def stop_note(self) -> Path:
        """Why the run was stopped on purpose, in one sentence; absent otherwise."""
        return self.path / "stopped.txt"

    @property
    def heartbeat(self) -> Path:
        """Sentences of a run that waits (a search engine that is down), a line each."""
        return self.path / "heartbeat.log"

    def trajectories(self, step: int) -> Path:
        """Every episode of a step, counted from 1."""
        return self.path / "trajectories" / f"step-{step:06d}.jsonl"

    def recorded_steps(self) -> list[tuple[int, Path]]:
        """The steps that have trajectories, with their files, in order."""
        found = ((_STEP.fullmatch(file.name), file) for file in (self.path / "trajectories").glob("step-*"))
        return sorted((int(match[1]), file) for match, file in found if match)
