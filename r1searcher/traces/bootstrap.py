"""`r1s data bootstrap`: traces for an SFT from any questions with answers and a retriever.

traces.jsonl                one trace per line, in an order that depends on the seed
traces.manifest.json        what they were made from, and how many questions gave a trace
QUESTIONS_TO                with --questions-to: the questions that gave a trace, in the same order
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

from r1searcher.common import terminal
from r1searcher.common.files import sha256_of, write_json, write_rows
from r1searcher.common.manifest import manifest_file
from r1searcher.common.terminal import SafeConsole, error_line, json_line, label
from r1searcher.common.versions import versions
from r1searcher.config.settings import Settings
from r1searcher.config.source import SettingsSource
from r1searcher.episodes.protocol import EpisodeProtocol
from r1searcher.episodes.tokens import HuggingFaceTokenizer, load_tokenizer
from r1searcher.errors import InputError
from r1searcher.models.demo import model_folder
from r1searcher.questions.named import Dataset, open_dataset
from r1searcher.questions.question import Question
from r1searcher.questions.rows import row_of
from r1searcher.questions.traces import Trace, write_traces
from r1searcher.retrieval.base import Health, Retriever
from r1searcher.runs.resolved import limits_of, prompt_maker_of, protocol_of, retriever_of
from r1searcher.traces.write import Refusal, TraceMaker, Way

AT_ONCE = 64
"""Questions whose traces are made at the same time."""


@dataclass(frozen=True, kw_only=True)
class BootstrapRequest:
    """The arguments of `r1s data bootstrap`. The settings are those of the stages that will train on the traces."""

    questions: str
    source: SettingsSource
    to: Path
    questions_to: Path | None = None
    data_dir: Path | None = None
    limit: int | None = None
    max_traces: int | None = None
    as_json: bool = False

    @property
    def manifest(self) -> Path:
        return manifest_file(self.to)


@dataclass(frozen=True, slots=True)
class Bootstrapped:
    """The traces with the ids of their questions, and how many questions had each outcome."""

    traces: Sequence[tuple[str, Trace]]
    ways: Mapping[Way, int]
    refused: Mapping[Refusal, int]

    @property
    def asked(self) -> int:
        """Questions that were looked at."""
        return len(self.traces) + sum(self.refused.values())


def run_bootstrap(request: BootstrapRequest) -> None:
    """Write the traces and their manifest, and print how many questions gave one and why the others did not.

    Raises `InputError` for wrong settings or questions, if the file is there already, and if no question gave a trace.
    """
    for file, option in ((request.to, "--to"), (request.manifest, "--to"), (request.questions_to, "--questions-to")):
        if file and file.exists():
            raise InputError(f"{file} exists: remove it, or choose another file with {option}")
    if request.questions_to in (request.to, request.manifest):
        raise InputError(f"--questions-to and --to would both write {request.questions_to}: give two files")
    settings = request.source.load("sft")
    maker = trace_maker(settings)
    data = open_dataset(request.questions, request.data_dir, limit=request.limit, training=True)
    errors = terminal.console(stderr=True)
    for warning in data.warnings:
        errors.print(f"{data.name}: {warning}", soft_wrap=True)
    made, health = asyncio.run(_from_retriever(settings, maker, data, request.max_traces, errors))
    if not made.traces:
        reasons = "; ".join(f"{reason}: {count:,}" for reason, count in made.refused.items())
        raise InputError(
            f"none of the {made.asked:,} questions of {request.questions} gave a trace ({reasons}); `r1s recall` says "
            "whether the corpus has the answers"
        )
    write_traces(request.to, made.traces)
    if request.questions_to:
        by_id = {question.id: question for question in data.questions}
        write_rows(request.questions_to, (row_of(by_id[id_]) for id_, _ in made.traces))
    report = _report(made)
    write_json(request.manifest, {**_origin(request, settings, data, health), **report})
    if request.as_json:
        json_line(report)
    else:
        _print(made, request)


def trace_maker(settings: Settings) -> TraceMaker:
    """Traces in the form of the episodes of these settings. Raises `InputError`, also if no model is set: which of its
    tokens are special decides how questions and passages are shown."""
    if not settings.model.path:
        raise InputError("model.path is not set: give the model that the SFT will start from with --model")
    protocol = protocol_of(settings)
    tokenizer = load_tokenizer(model_folder(settings.model.path, error_line), settings.model.trust_remote_code)
    ours = HuggingFaceTokenizer(tokenizer)
    return TraceMaker(
        protocol=protocol,
        prompt=prompt_maker_of(settings, tokenizer, ours.special_tokens),
        limits=limits_of(settings),
        max_answer_words=settings.reward.max_answer_words,
        format_rules=settings.reward.format_rules,
        special_tokens=ours.special_tokens,
        count_tokens=_Counter(ours, protocol, settings.model.reserved_tokens).count,
    )


@dataclass(frozen=True, slots=True)
class _Counter:
    """Counts the tokens of a segment. With `reserved_tokens` the SFT gives each of some tags a token of its own."""

    tokenizer: HuggingFaceTokenizer
    protocol: EpisodeProtocol
    reserved_tokens: bool

    def count(self, text: str) -> int:
        tags = 0
        for tag in self.protocol.reserved_tags if self.reserved_tokens else ():
            tags += text.count(tag)
            text = text.replace(tag, "")
        return tags + len(self.tokenizer.encode(text))


async def _from_retriever(
    settings: Settings, maker: TraceMaker, data: Dataset, most: int | None, console: SafeConsole
) -> tuple[Bootstrapped, Health]:
    columns = (label("questions"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), label("{task.fields[n]}"))
    async with aclosing(retriever_of(settings, error_line)) as retriever:
        health = await retriever.health()
        with terminal.progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("traces", total=len(data.questions), n="")

            def finished(asked: int, traces: int) -> None:
                progress.update(task, completed=asked, n=f"{traces:,} traces")

            order = list(data.questions)
            random.Random(settings.seed).shuffle(order)
            return await bootstrap(order, maker, retriever, most, finished), health


async def bootstrap(
    questions: Sequence[Question],
    maker: TraceMaker,
    retriever: Retriever,
    most: int | None = None,
    finished: Callable[[int, int], None] = lambda asked, traces: None,
) -> Bootstrapped:
    """Traces of `questions`, in their order, until there are `most`. `finished` gets the numbers of questions and
    traces so far. Raises `RetrieverError`."""
    traces: list[tuple[str, Trace]] = []
    ways: Counter[Way] = Counter()
    refused: Counter[Refusal] = Counter()
    for start in range(0, len(questions), AT_ONCE):
        batch = questions[start : start + AT_ONCE]
        outcomes = await asyncio.gather(*(maker(question, retriever) for question in batch))
        for question, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Refusal):
                refused[outcome] += 1
                continue
            trace, way = outcome
            traces.append((question.id, trace))
            ways[way] += 1
            if len(traces) == most:
                return Bootstrapped(traces, ways, refused)
        finished(start + len(batch), len(traces))
    return Bootstrapped(traces, ways, refused)


def _report(made: Bootstrapped) -> dict[str, Any]:
    return {
        "questions": made.asked,
        "traces": len(made.traces),
        "written": {way.name.lower(): made.ways[way] for way in Way},
        "not_written": {refusal.name.lower(): made.refused[refusal] for refusal in Refusal},
    }


def _origin(request: BootstrapRequest, settings: Settings, data: Dataset, health: Health) -> dict[str, Any]:
    """What the traces were made from."""
    episode = settings.episode.model_dump(include={"protocol", "max_searches", "top_k", "max_document_words"})
    return {
        "questions_from": data.source,
        "questions_sha256": data.sha256,
        "retriever": asdict(health),
        "model": settings.model.model_dump(),
        "episode": episode,
        "seed": settings.seed,
        "limit": request.limit,
        "max_traces": request.max_traces,
        "traces_sha256": sha256_of(request.to),
        "versions": versions(),
    }


def _print(made: Bootstrapped, request: BootstrapRequest) -> None:
    from rich.table import Table

    table = Table("trace", "questions", box=None, padding=(0, 1))
    table.columns[1].justify = "right"
    for way in Way:
        table.add_row(way, f"{made.ways[way]:,}")
    for refusal in Refusal:
        table.add_row(f"none: {refusal}", f"{made.refused[refusal]:,}", style="dim")
    screen = terminal.console()
    screen.print(table)
    screen.print(f"{len(made.traces):,} traces of {made.asked:,} questions: {request.to}", soft_wrap=True)
