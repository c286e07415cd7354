"""`r1s data select`: questions by the attempts that a right answer takes a model (R1-Searcher, section 3.1).

The paper calls a question easy if fewer than 10 rollouts are needed, medium up to 20, and hard beyond that. A question
is attempted until it is answered right, at most `samples` times. The folder is an evaluation (`evaluation.folder`) with

easy.jsonl, medium.jsonl, hard.jsonl    the questions, each with its attempts; null if no answer was right
selection.json                          thresholds, counts, the questions per number of attempts, and examples

The same command resumes. Other thresholds, and more samples, use the episodes that are there.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from r1searcher.common import terminal
from r1searcher.common.files import write_json, write_rows
from r1searcher.common.terminal import SafeConsole
from r1searcher.episodes.trajectory import Trajectory
from r1searcher.errors import InputError
from r1searcher.evaluation.evaluate import EvaluationRequest, Plan, manifest_of, plan_of, run_episodes
from r1searcher.evaluation.folder import EvaluationFolder
from r1searcher.evaluation.rollouts import RolloutRequest, rollout_requests
from r1searcher.questions.question import Question
from r1searcher.questions.rows import row_of
from r1searcher.rewards.format import answer_of_trajectory
from r1searcher.rewards.metrics import score
from r1searcher.runs.records import from_row

SAMPLES = 20
"""The attempts at which the paper's thresholds are its own; with others the lower one changes in proportion."""

EASY_BELOW = 10
"""The paper's threshold: an easy question takes fewer attempts."""

EXAMPLES = 3
"""Questions of each difficulty in the report."""


class Difficulty(StrEnum):
    EASY = "easy"
    MEDIUM = "medium"
    HARD = "hard"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Easy: fewer than `easy_below` attempts. Hard: more than `hard_above`, or no right answer. Medium: the others."""

    easy_below: int
    hard_above: int

    @classmethod
    def of(cls, samples: int, easy_below: int | None, hard_above: int | None) -> "Thresholds":
        """Those given, otherwise the paper's in proportion to `samples`. Raises `InputError` if they do not fit."""
        chosen = cls(easy_below or math.ceil(EASY_BELOW * samples / SAMPLES), hard_above or samples)
        if not chosen.easy_below <= chosen.hard_above <= samples:
            raise InputError(
                f"--easy-below {chosen.easy_below} and --hard-above {chosen.hard_above} must be in this order, and at "
                f"most --samples {samples}: give others"
            )
        return chosen

    def difficulty(self, attempts: int | None) -> Difficulty:
        if attempts is None or attempts > self.hard_above:
            return Difficulty.HARD
        return Difficulty.EASY if attempts < self.easy_below else Difficulty.MEDIUM


@dataclass(frozen=True, kw_only=True)
class SelectRequest:
    """The arguments of `r1s data select`. `rollouts` has the model and the single dataset, and a folder."""

    rollouts: EvaluationRequest
    easy_below: int | None = None
    hard_above: int | None = None
    min_f1: float = 1.0
    as_json: bool = False


@dataclass
class Attempts:
    """The number of the first right answer of each question, from 1, by the question's index."""

    min_f1: float
    first: dict[int, int] = field(default_factory=dict)
    answers: dict[int, str | None] = field(default_factory=dict)
    """The last answer seen: the right one if there is one."""

    def add(self, index: int, sample: int, trajectory: Trajectory) -> None:
        answer = answer_of_trajectory(trajectory)
        right = score(answer, trajectory.gold_answers).f1 >= self.min_f1
        if right and sample + 1 < self.first.get(index, sample + 2):
            self.first[index] = sample + 1
        if right or index not in self.first:
            self.answers[index] = answer

    def waiting(self, episodes: Sequence[RolloutRequest]) -> Iterator[RolloutRequest]:
        """The episodes of questions that have no right answer when their turn comes: first attempts first."""
        for episode in sorted(episodes, key=lambda one: one.sample):
            if episode.index not in self.first:
                yield episode


def run_select(request: SelectRequest) -> None:
    """Run what is missing, write the files and print the report. Raises what `evaluate` raises."""
    rollouts = request.rollouts
    thresholds = Thresholds.of(rollouts.samples, request.easy_below, request.hard_above)
    plan, folder = plan_of(rollouts), rollouts.folder
    manifest = asyncio.run(manifest_of(plan))
    del manifest["samples"]  # more of them continue the same selection
    folder.start(manifest)
    with folder.locked():
        attempts = _attempted(plan, folder, request.min_f1, terminal.console(stderr=True))
    questions = plan.datasets[0].questions
    rows: dict[Difficulty, list[dict[str, Any]]] = {difficulty: [] for difficulty in Difficulty}
    for index, question in enumerate(questions):
        taken = _within(attempts.first.get(index), rollouts.samples)
        rows[thresholds.difficulty(taken)].append({**row_of(question), "attempts": taken})
    for difficulty, chosen in rows.items():
        write_rows(folder.path / f"{difficulty}.jsonl", chosen)
    report = _report(request, thresholds, rows, attempts, questions)
    write_json(folder.path / "selection.json", report)
    if request.as_json:
        terminal.json_line(report)
    else:
        _print(report, folder.path)


def _within(attempts: int | None, samples: int) -> int | None:
    """The attempts, unless an earlier command sampled more and only they were right."""
    return attempts if attempts is not None and attempts <= samples else None


def _attempted(plan: Plan, folder: EvaluationFolder, min_f1: float, console: SafeConsole) -> Attempts:
    """The attempts after running the missing episodes."""
    [dataset] = plan.datasets
    for warning in dataset.warnings:
        console.print(f"{dataset.name}: {warning}", soft_wrap=True)
    attempts = Attempts(min_f1)
    for row in folder.ordered([dataset.name]):
        attempts.add(row["index"], row["sample"], from_row(row))
    seed, samples = plan.target.settings.seed, plan.request.samples
    wanted = rollout_requests(dataset.questions, plan.temperature, samples, seed, dataset.name)
    missing = [episode for episode in folder.missing(wanted) if episode.index not in attempts.first]
    if missing:

        def finished(episode: RolloutRequest, trajectory: Trajectory) -> None:
            attempts.add(episode.index, episode.sample, trajectory)

        asyncio.run(run_episodes(plan, attempts.waiting(missing), folder, console, len(missing), finished))
    return attempts


def _report(
    request: SelectRequest,
    thresholds: Thresholds,
    rows: Mapping[Difficulty, Sequence[Mapping[str, Any]]],
    attempts: Attempts,
    questions: Sequence[Question],
) -> dict[str, Any]:
    taken = Counter(row["attempts"] for chosen in rows.values() for row in chosen)
    answers = {question.id: attempts.answers.get(index) for index, question in enumerate(questions)}
    return {
        "questions": len(questions),
        "samples": request.rollouts.samples,
        "easy_below": thresholds.easy_below,
        "hard_above": thresholds.hard_above,
        "min_f1": request.min_f1,
        **{difficulty: len(chosen) for difficulty, chosen in rows.items()},
        "never_right": taken[None],
        "by_attempts": {str(n): taken[n] for n in sorted(number for number in taken if number)},
        "examples": {
            difficulty: [{**row, "answer": answers[row["id"]]} for row in chosen[:EXAMPLES]]
            for difficulty, chosen in rows.items()
        },
    }


def _print(report: Mapping[str, Any], folder: Path) -> None:
    easy_below, hard_above = report["easy_below"], report["hard_above"]
    meaning = {
        Difficulty.EASY: f"fewer than {easy_below} attempts",
        Difficulty.MEDIUM: f"{easy_below} to {hard_above} attempts",
        Difficulty.HARD: f"more than {hard_above}; {report['never_right']:,} never right in {report['samples']}",
    }
    screen = terminal.console()
    for difficulty, said in meaning.items():
        screen.print(f"{difficulty}: {report[difficulty]:,} questions ({said})", soft_wrap=True)
        for row in report["examples"][difficulty]:
            gold, answer = " | ".join(row["gold_answers"]), row["answer"]
            screen.print(f"    {row['question']} gold: {gold}, answered: {answer}", style="dim", soft_wrap=True)
    names = ", ".join(f"{difficulty}.jsonl" for difficulty in Difficulty)
    screen.print(f"{names}: {folder}", soft_wrap=True)
