"""The run folder: the path of each file of a run."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of one stage's run. Folders and files are created when they are written."""

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
        """The engine's command line, for running it manually."""
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
        """One row per step."""
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
        """Why the run was deliberately stopped, in one sentence; absent otherwise."""
        return self.path / "stopped.txt"

    @property
    def heartbeat(self) -> Path:
        """Notices of a waiting run (for example, while the search engine is down), one per line."""
        return self.path / "heartbeat.log"

    def trajectories(self, step: int) -> Path:
        """Every episode of a step, counted from 1."""
        return self.path / "trajectories" / f"step-{step:06d}.jsonl"
