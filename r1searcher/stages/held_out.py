"""Held-out questions after a stage: answered by its model, sampled as in training and greedily.

The rollouts run in a separate process (`python -m r1searcher.stages.held_out JOB`), because vLLM keeps its memory until
its process ends, and the next stage needs that memory.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

from r1searcher.common import last_resort, terminal
from r1searcher.common.files import LineCounter, append_row, last_line, open_log, write_json
from r1searcher.common.records import Record, read_record, read_record_if_there, read_records
from r1searcher.common.terminal import SafeConsole, label
from r1searcher.episodes.trajectory import Trajectory
from r1searcher.errors import R1Error
from r1searcher.questions.named import open_dataset
from r1searcher.questions.question import Question
from r1searcher.report.intervals import Interval, interval
from r1searcher.rewards.measures import F1, F1_ONE_HOP, F1_TWO_HOP, Measure, View, measure, shown_in
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import Str, TrajectoryRow, to_row, trajectory_of
from r1searcher.runs.resolved import read_run

DECODING = {"sampled": 1.0, "greedy": 0.0}
"""Temperatures, by how the answers are decoded."""

TEMPERATURES = tuple(DECODING.values())

CONCURRENCY = 160
"""Episodes at a time: a batch of a small model costs little more than one episode."""


class Job(Record):
    """The child process's task, as JSON. The settings are those of `run`; `model` is a Hugging Face folder."""

    run: Str
    model: Str
    questions: int


class Means(Record):
    """Means over questions, sampled or greedy; see `held_out_metrics`."""

    __pydantic_extra__: dict[str, float]


class HeldOutMetrics(Means):
    """`metrics.json`."""

    greedy: Means
    questions: int


class HeldOutRow(TrajectoryRow):
    """A trajectory, the index of its question, and the searches that the question needs (0 if that is not known)."""

    index: int
    hops: int = 0


def folder_of(run: RunFolder) -> Path:
    return run.path / "held_out"


def trajectories_file(run: RunFolder, temperature: float) -> Path:
    return folder_of(run) / f"{'sampled' if temperature else 'greedy'}.jsonl"


def metrics_file(run: RunFolder) -> Path:
    return folder_of(run) / "metrics.json"


def finished_evaluation(run: RunFolder) -> dict[str, Any] | None:
    """The metrics of a finished evaluation, as `evaluate_held_out` returns them; None if there is none."""
    remedy = "remove it and repeat the command to evaluate again"
    done = read_record_if_there(metrics_file(run), HeldOutMetrics, remedy)
    return done.model_dump(exclude_none=True) if done else None


def evaluate_held_out(run: RunFolder, model: Path, questions: int, console: SafeConsole) -> dict[str, Any]:
    """Metrics of `model` on at most the first `questions` held-out questions of the run's settings, sampled at
    temperature 1, with the greedy ones under `greedy`. A finished evaluation is read, not repeated.

    Raises `R1Error` if the rollouts failed, with the path of their log.
    """
    if done := finished_evaluation(run):
        return done
    asked = _questions(run, questions)
    job = folder_of(run) / "job.json"
    write_json(job, Job(run=str(run.path), model=str(model), questions=len(asked)).model_dump())
    for temperature in TEMPERATURES:  # a partial evaluation is not resumed: its metrics would mix two random draws
        trajectories_file(run, temperature).unlink(missing_ok=True)
    started = time.monotonic()
    log = folder_of(run) / "log.txt"
    with open_log(log, "wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", __name__, str(job)], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            _follow(child, run, len(asked) * len(TEMPERATURES), console)
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait()
    if child.returncode != 0:
        last = last_line(log) or "it printed nothing"
        raise R1Error(f"the held-out evaluation failed: {last.removeprefix('r1s: ')[:500]} (log: {log})")
    by_temperature = {t: held_out_metrics(read_trajectories(run, t), asked) for t in TEMPERATURES}
    result = {**by_temperature[1.0], "greedy": by_temperature[0.0], "questions": len(asked)}
    write_json(metrics_file(run), {**result, "seconds": round(time.monotonic() - started, 1)})
    return result


def read_trajectories(run: RunFolder, temperature: float) -> list[Trajectory]:
    """The held-out trajectories of a run, in the order of the questions."""
    return [trajectory_of(row) for row in _rows(run, temperature)]


def _rows(run: RunFolder, temperature: float) -> list[HeldOutRow]:
    return sorted(read_records(trajectories_file(run, temperature), HeldOutRow), key=lambda row: row.index)


def held_out_metrics(trajectories: Sequence[Trajectory], questions: Sequence[Question]) -> dict[str, float]:
    """Means over questions; `f1_one_hop` and `f1_two_hop` if the questions have their number of hops."""
    if len(trajectories) != len(questions):
        raise R1Error(f"{len(trajectories)} of {len(questions)} held-out questions have a trajectory")
    values = _values(trajectories, [question.hops for question in questions])
    return {m.name: round(m.aggregate(found), 4) for m, found in values.items()}


def held_out_intervals(run: RunFolder) -> dict[str, dict[str, Interval]]:
    """Decoding -> measure -> mean and 95 % interval, from the trajectories of a finished evaluation.

    Of the measures that are means.
    """
    intervals = {}
    for how, temperature in DECODING.items():
        rows = _rows(run, temperature)
        values = _values([trajectory_of(row) for row in rows], [row.hops for row in rows])
        intervals[how] = {m.name: interval(found) for m, found in values.items() if m.aggregate is fmean}
    return intervals


def _values(trajectories: Sequence[Trajectory], hops: Sequence[int]) -> dict[Measure, list[float]]:
    """The values of each measure, one per question that has one."""
    measured = [measure(trajectory) for trajectory in trajectories]
    values = {m: [row[m.name] for row in measured if m.name in row] for m in shown_in(View.HELD_OUT)}
    for by_hops, needed in ((F1_ONE_HOP, 1), (F1_TWO_HOP, 2)):
        values[by_hops] = [row[F1.name] for row, n in zip(measured, hops, strict=True) if n == needed]
    return {m: found for m, found in values.items() if found}


def _questions(run: RunFolder, limit: int) -> tuple[Question, ...]:
    _, settings = read_run(run)
    return open_dataset(settings.data.held_out, settings.data.folder, limit=limit, strict=True).questions


def _follow(child: "subprocess.Popen[bytes]", run: RunFolder, total: int, console: SafeConsole) -> None:
    columns = (label("held-out questions"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    answered, files = LineCounter(), [trajectories_file(run, temperature) for temperature in TEMPERATURES]
    with terminal.progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("held out", total=total)
        while child.poll() is None:
            progress.update(task, completed=answered.count(files))
            time.sleep(0.5)


def run_job(job_file: Path) -> None:
    """The child's task: answer every held-out question at each temperature, and write one row per trajectory."""
    from r1searcher.evaluation.rollouts import RolloutRequest, roll_out_model

    job = read_record(job_file, Job, "start the evaluation again with the run's own command")
    run = RunFolder(Path(job.run))
    _, settings = read_run(run)

    def write(task: RolloutRequest, trajectory: Trajectory) -> None:
        row = to_row(trajectory, id=task.question.id, index=task.index, hops=task.question.hops)
        append_row(trajectories_file(run, task.temperature), row)

    questions = _questions(run, job.questions)
    roll_out_model(
        Path(job.model), questions, settings, temperatures=TEMPERATURES, finished=write, concurrency=CONCURRENCY
    )


def main() -> int:
    run_job(Path(sys.argv[1]))
    return 0


if __name__ == "__main__":
    sys.exit(last_resort.run(main))
