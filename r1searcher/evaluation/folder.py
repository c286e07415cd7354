"""The folder of an evaluation: its manifest, its episodes, and a lock against a second process.

TO/
  manifest.json       the model, datasets and settings; another evaluation is never written here
  predictions.jsonl   one row per episode, in the order of the questions once all have run
  judge.jsonl         verdicts of the judge, by question and answer
  report.json report.md report.html
"""

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1searcher.common.files import append_row, write_json, write_rows, writing
from r1searcher.common.http import shown_url
from r1searcher.common.manifest import Kind, resumes
from r1searcher.common.records import Record, checked_rows
from r1searcher.config.settings import LONGEST_NAME
from r1searcher.errors import InputError
from r1searcher.evaluation.rollouts import RolloutRequest
from r1searcher.runs.records import Count, Str, TrajectoryRow

DAMAGED = "restore the file from a copy, or evaluate into another folder with --to"
EVALUATION = Kind(noun="evaluation", damaged=DAMAGED, another="choose another folder with --to")


class EvaluationManifest(Record):
    """`manifest.json`: the model, the datasets, and what else the predictions depend on."""

    model: Str
    datasets: dict[str, Any]


class EpisodeRow(TrajectoryRow):
    """A row of `predictions.jsonl`: an episode, and which one it is."""

    dataset: Str
    index: Count
    sample: Count
    seconds: float
    reward: float
    parts: dict[str, float]


Row = dict[str, Any]
Episode = tuple[str, int, int]
"""What identifies an episode of an evaluation: dataset, index of the question, number of the sample."""


@dataclass(frozen=True, slots=True)
class EvaluationFolder:
    """Paths and rows of one evaluation. Files are created when they are first written."""

    path: Path

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.jsonl"

    @property
    def verdicts(self) -> Path:
        return self.path / "judge.jsonl"

    def start(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest, or resume the same evaluation. Raises `InputError` for a folder of another one."""
        if resumes(self.manifest, EvaluationManifest, manifest, EVALUATION):
            return
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is not a folder: choose another one with --to")
        if self.path.exists() and any(self.path.iterdir()):
            raise InputError(f"{self.path} is not empty and not an evaluation: choose another folder with --to")
        write_json(self.manifest, manifest)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder. Raises `InputError` if another process is writing to it."""
        with self.manifest.open("rb") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"another r1s evaluate is writing to {self.path}: wait for it, or choose another --to"
                ) from None
            yield

    def rows(self) -> list[Row]:
        """The rows of `predictions.jsonl`, without a last line that a crash cut. Raises `InputError` for damage."""
        return list(checked_rows(self.predictions, EpisodeRow))

    def missing(self, wanted: Sequence[RolloutRequest]) -> list[RolloutRequest]:
        """The episodes of `wanted` that do not have a row yet. A last line cut by a crash is removed from the file.

        Raises `InputError` for a row that is damaged otherwise, before anything is removed.
        """
        done = {episode_of(row) for row in self.rows()}
        if self.predictions.exists():
            data = self.predictions.read_bytes()
            whole = data.rfind(b"\n") + 1
            if whole < len(data):
                with writing(self.predictions):
                    os.truncate(self.predictions, whole)
        return [request for request in wanted if (request.dataset, request.index, request.sample) not in done]

    def ordered(self, datasets: Sequence[str]) -> list[Row]:
        """All rows, by dataset, question and sample. Raises `InputError` for a row of a dataset that is not named."""
        order = {name: number for number, name in enumerate(datasets)}
        rows = self.rows()
        for row in rows:
            if row["dataset"] not in order:
                raise InputError(
                    f"{self.predictions} is damaged ({row['dataset']!r} is not one of its datasets): {DAMAGED}"
                )
        return sorted(rows, key=lambda row: (order[row["dataset"]], row["index"], row["sample"]))

    def append(self, row: Mapping[str, Any]) -> None:
        append_row(self.predictions, row)

    def rewrite(self, rows: Sequence[Mapping[str, Any]]) -> None:
        write_rows(self.predictions, rows)


def episode_of(row: Mapping[str, Any]) -> Episode:
    return row["dataset"], row["index"], row["sample"]


def default_folder(model: str, datasets: Sequence[str]) -> Path:
    """The default folder of an evaluation: runs/evaluate/MODEL-DATASETS."""
    shown = shown_url(model).split("://")[-1]
    names = "-".join(Path(name).stem for name in datasets)
    name = re.sub(r"[^\w.+=@-]+", "-", f"{shown}-{names}").strip("-.") or "evaluation"
    if len(name.encode()) > LONGEST_NAME:
        name = f"{name.encode()[:200].decode('utf-8', 'ignore')}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return Path("runs") / "evaluate" / name
