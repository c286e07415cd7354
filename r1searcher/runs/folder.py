"""The run folder: the path of each file of a run."""

import re
from dataclasses import dataclass
from pathlib import Path

_STEP = re.compile(r"step-(\d{6,9})")


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
    def tracking(self) -> Path:
        """What the trackers of the settings write: a log, a note and their own files each."""
        return self.path / "tracking"

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
    def heartbeats(self) -> Path:
        """The folder with notices of a waiting run (for example, while the search engine is down).

        One file per process, as for trajectories: on NFS, lines that two processes append to the same file get lost.
        """
        return self.path / "heartbeats"

    @property
    def stop_request(self) -> Path:
        """A file that asks the run to end after the current step, with everything saved."""
        return self.path / "stop"

    @property
    def ending(self) -> Path:
        """Why the training loop ended before its last step; absent otherwise."""
        return self.path / "ending.json"

    @property
    def launch_note(self) -> Path:
        """The mark that identifies the processes of the current launch; absent if none is running."""
        return self.path / "launch.json"

    def trajectories(self, step: int) -> Path:
        """The folder with every episode of a step, counted from 1.

        One file per rollout process, so that no two processes write to the same file.
        """
        return self.path / "trajectories" / f"step-{step:06d}"

    @property
    def eval_trajectories(self) -> Path:
        """The folder with the episodes of the engine's own evaluations, again one file per process."""
        return self.path / "trajectories" / "eval"

    def recorded_steps(self) -> list[tuple[int, Path]]:
        """The steps that have trajectories, with their folders, in order."""
        found = ((_STEP.fullmatch(folder.name), folder) for folder in (self.path / "trajectories").glob("step-*"))
        return sorted((int(match[1]), folder) for match, folder in found if match)
