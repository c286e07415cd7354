"""`r1s evaluate`: questions in, predictions and metrics out; `evaluation.folder` lists the files.

Episodes are written as they end. Running the same command again runs the missing ones.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TimeElapsedColumn, TimeRemainingColumn

from r1searcher.common import terminal
from r1searcher.common.http import shown_url
from r1searcher.common.terminal import SafeConsole, label
from r1searcher.common.versions import versions
from r1searcher.episodes.prompt import prompt_text
from r1searcher.episodes.trajectory import Trajectory
from r1searcher.errors import InputError
from r1searcher.evaluation.engines import completions_client
from r1searcher.evaluation.folder import EvaluationFolder, Row, default_folder
from r1searcher.evaluation.judge import Judge, JudgeRequest, judge_server
from r1searcher.evaluation.predictions import of_row
from r1searcher.evaluation.reports import records_of
from r1searcher.evaluation.rollouts import RolloutRequest, request_maker, roll_out, rollout_requests
from r1searcher.evaluation.target import ModelRequest, Target, find_target, open_engine
from r1searcher.questions.named import Dataset, is_here, open_dataset
from r1searcher.questions.quality import overlap_warning
from r1searcher.report.scoring import MetricSummary
from r1searcher.report.write import write_report
from r1searcher.retrieval.registry import described, open_retriever
from r1searcher.rewards.format import answer_of_trajectory
from r1searcher.rewards.metrics import score
from r1searcher.runs.records import to_row
from r1searcher.runs.resolved import protocol_of, retriever_of, reward_of


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest(ModelRequest):
    """The arguments of `r1s evaluate`. `temperature` None: 0, or 1 if several answers are sampled."""

    datasets: Sequence[str]
    to: Path | None = None
    data_dir: Path | None = None
    limit: int | None = None
    samples: int = 1
    temperature: float | None = None
    judge: JudgeRequest | None = None

    @property
    def folder(self) -> EvaluationFolder:
        return EvaluationFolder(self.to or default_folder(self.model, self.datasets))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A request with everything that was resolved from it."""

    request: EvaluationRequest
    target: Target
    datasets: Sequence[Dataset]
    temperature: float


def evaluate(request: EvaluationRequest, console: SafeConsole) -> dict[str, MetricSummary]:
    """Run the missing episodes, score all, write the report. Returns the metrics by dataset.

    Raises `InputError` if `to` has another evaluation.
    """
    plan = plan_of(request)
    manifest = asyncio.run(manifest_of(plan))
    folder = request.folder
    folder.start(manifest)
    with folder.locked():
        rows = _all_rows(plan, folder, console)
    return dict(write_report(folder.path, records_of(manifest, rows)).summaries)


def plan_of(request: EvaluationRequest) -> Plan:
    """Resolves the request. Raises `InputError` for every error that can be found before an episode runs."""
    target = find_target(request.model, request.overrides)
    temperature = request.temperature if request.temperature is not None else (1.0 if request.samples > 1 else 0.0)
    if request.samples > 1 and temperature == 0:
        raise InputError("--samples draws several answers per question; at temperature 0 they would all be the same")
    target.require_retriever()
    if target.is_url:
        completions_client(target.model)
    if request.judge:
        judge_server(request.judge)
    data_dir = request.data_dir or target.settings.data.folder
    datasets = [_with_overlap(open_dataset(name, data_dir, limit=request.limit), target) for name in request.datasets]
    if len({dataset.name for dataset in datasets}) < len(datasets):
        raise InputError("two datasets have the same name: evaluate them one by one")
    return Plan(request=request, target=target, datasets=datasets, temperature=temperature)


def _with_overlap(dataset: Dataset, target: Target) -> Dataset:
    """The dataset with a warning about questions that the model was trained on, if its run and data are known."""
    data = target.settings.data
    if not (target.run and data.train and is_here(data.train, data.folder, training=True)):
        return dataset
    trained_on = open_dataset(data.train, data.folder, limit=data.limit, training=True)
    return replace(dataset, warnings=(*dataset.warnings, *overlap_warning(dataset.questions, trained_on.questions)))


async def manifest_of(plan: Plan) -> dict[str, Any]:
    """What identifies the evaluation, including the retriever's contents. Raises `RetrieverError`."""
    target, settings = plan.target, plan.target.settings
    text = prompt_text(settings.model.prompt, protocol_of(settings))
    async with aclosing(open_retriever(settings.retrieval.engine)) as retriever:
        health = await retriever.health()
    return {
        "model": shown_url(target.model),
        "model_fingerprint": fingerprint(Path(target.model)),
        "trained_by": str(target.run) if target.run else None,
        "datasets": {
            d.name: {"source": d.source, "sha256": d.sha256, "n": len(d.questions), "warnings": list(d.warnings)}
            for d in plan.datasets
        },
        "retriever": {**described(settings.retrieval.engine), **asdict(health)},
        "episode": settings.episode.model_dump(),
        "temperature": plan.temperature,
        "samples": plan.request.samples,
        "seed": settings.seed,
        "prompt": settings.model.prompt,
        "chat_template": settings.model.chat_template,
        "prompt_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "reward": settings.reward.model_dump(mode="json"),
        "versions": versions(),
    }


def fingerprint(model: Path) -> str | None:
    """Hash of a model folder: names and sizes of its files, and the first and last megabyte of each. None for a URL
    or a hub name."""
    if not model.is_dir():
        return None
    digest = hashlib.sha256()
    for file in sorted(f for f in model.iterdir() if f.is_file()):  # `last_resort` reports unreadable ones
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}\n".encode())
        with file.open("rb") as handle:
            digest.update(handle.read(1 << 20))
            handle.seek(max(0, size - (1 << 20)))
            digest.update(handle.read())
    return digest.hexdigest()


def _all_rows(plan: Plan, folder: EvaluationFolder, console: SafeConsole) -> list[Row]:
    """One row per episode in order, after running the missing ones, with verdicts if a judge is requested."""
    request, seed = plan.request, plan.target.settings.seed
    episodes: list[RolloutRequest] = []
    for dataset in plan.datasets:
        for warning in dataset.warnings:
            console.print(f"{dataset.name}: {warning}", soft_wrap=True)
        episodes += rollout_requests(dataset.questions, plan.temperature, request.samples, seed, dataset.name)
    missing = folder.missing(episodes)
    if missing:
        if len(missing) < len(episodes):
            there = len(episodes) - len(missing)
            console.print(f"{there} of {len(episodes)} episodes are already done; running the others")
        asyncio.run(run_episodes(plan, missing, folder, console, len(missing)))
    rows = folder.ordered([dataset.name for dataset in plan.datasets])
    if request.judge:
        rows = _judged(rows, Judge(request.judge, folder.verdicts), console)
    folder.rewrite(rows)
    return rows


async def run_episodes(
    plan: Plan,
    episodes: Iterable[RolloutRequest],
    folder: EvaluationFolder,
    console: SafeConsole,
    most: int,
    finished: Callable[[RolloutRequest, Trajectory], None] = lambda episode, trajectory: None,
) -> None:
    """Run the episodes, at most `most`, and append a row for each as it ends, then call `finished`."""
    request, target, settings = plan.request, plan.target, plan.target.settings
    reward = reward_of(settings)
    async with AsyncExitStack() as stack:
        shown = stack.enter_context(_Progress(f"starting {shown_url(target.model)}", most, console))
        engine = await open_engine(stack, request, target)
        retriever = retriever_of(settings, console.print)
        stack.push_async_callback(retriever.aclose)
        rollouts = roll_out(episodes, engine, retriever, request_maker(settings, engine), request.concurrency)
        async for episode, trajectory, seconds in await stack.enter_async_context(aclosing(rollouts)):
            earned = reward(trajectory)
            row = to_row(
                trajectory,
                dataset=episode.dataset,
                id=episode.question.id,
                index=episode.index,
                sample=episode.sample,
                seconds=round(seconds, 3),
                reward=earned.total,
                parts=dict(earned.parts),
            )
            folder.append(row)
            finished(episode, trajectory)
            shown.add(score(answer_of_trajectory(trajectory), trajectory.gold_answers).em)


class _Progress:
    """Exact match so far: on a progress bar in a terminal, on a line per 50 episodes elsewhere."""

    def __init__(self, description: str, total: int, console: SafeConsole) -> None:
        columns = (
            label("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._console, self._total = console, total
        self._progress = terminal.progress(*columns, console=console)
        self._bar = self._progress.add_task(description, total=total)
        self._done, self._right = 0, 0.0

    def __enter__(self) -> "_Progress":
        self._progress.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._progress.__exit__(*exc)

    def add(self, em: float) -> None:
        self._done += 1
        self._right += em
        rate = f"EM {self._right / self._done:.3f}"
        self._progress.update(self._bar, completed=self._done, description=rate)
        if not self._console.is_terminal and (self._done % 50 == 0 or self._done == self._total):
            self._console.print(f"{self._done} of {self._total} episodes, {rate}")


def _judged(rows: list[Row], judge: Judge, console: SafeConsole) -> list[Row]:
    verdicts = judge([of_row(row, str(number)) for number, row in enumerate(rows)])
    if judge.failures:
        console.print(
            f"the judge failed on {len(judge.failures)} predictions, for example: {judge.failures[0]}",
            soft_wrap=True,
        )
    return [
        {**row, "judge": "failed" if verdict.judge_failed else verdict.judge}
        for row, verdict in zip(rows, verdicts, strict=True)
    ]
