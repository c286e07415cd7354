"""The run folder: one place that knows where each file of a run lies."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
        """The engine's prompt data set: rendered prompts and labels, in training order."""
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

    def finished_steps(self) -> int:
        """How many steps are in `metrics`; the step under way is one more."""
        last = last_row(self.metrics)
        return int(last["step"]) if last else 0


def append_row(file: Path, row: Mapping[str, Any]) -> None:
    """Append one JSON line in a single write, so that rows of several processes never mix."""
    file.parent.mkdir(parents=True, exist_ok=True)
    data = (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        written = os.write(descriptor, data)
        if written != len(data):  # a disk that fills up cuts the write short instead of failing it
            raise OSError(f"only {written} of {len(data)} bytes of a row fit into {file}: is the disk full?")
    finally:
        os.close(descriptor)


def read_rows(file: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL file of ours; nothing if it is not there. A last line cut by a crash is left out."""
    if not file.exists():
        return
    with file.open("r", encoding="utf-8", errors="surrogatepass") as lines:
        for line in lines:
            if line.endswith("\n"):
                yield json.loads(line)


def last_row(file: Path) -> dict[str, Any] | None:
    """The last whole row of a JSONL file, without reading the rest."""
    try:
        with file.open("rb") as handle:
            size = handle.seek(0, os.SEEK_END)
            block = 1 << 14
            while True:
                start = max(0, size - block)
                handle.seek(start)
                lines = handle.read(size - start).split(b"\n")
                whole = lines[:-1] if start == 0 else lines[1:-1]
                if whole:
                    row: dict[str, Any] = json.loads(whole[-1])
                    return row
                if start == 0:
                    return None
                block *= 4
    except FileNotFoundError:
        return None


def write_json(file: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(file)
