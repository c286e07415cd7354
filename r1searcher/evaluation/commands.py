"""What `r1s evaluate`, `ask`, `score` and `compare` print."""

import asyncio
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from r1searcher.common import terminal
from r1searcher.common.http import shown_url
from r1searcher.common.terminal import SafeConsole, outside
from r1searcher.episodes.loop import Generation, TokenGenerator, run_episode
from r1searcher.episodes.tokens import Tokenizer
from r1searcher.episodes.trajectory import StopReason, Trajectory
from r1searcher.errors import InputError
from r1searcher.evaluation.comparison import compare
from r1searcher.evaluation.evaluate import EvaluationRequest, evaluate
from r1searcher.evaluation.judge import Judge
from r1searcher.evaluation.predictions import read_predictions
from r1searcher.evaluation.rollouts import prompt_maker
from r1searcher.evaluation.scoring import score_file
from r1searcher.evaluation.target import ModelRequest, find_target, open_engine
from r1searcher.questions.datasets import DATASETS
from r1searcher.report.scoring import MetricSummary, Scored, by_dataset, score_prediction, summarize
from r1searcher.report.tables import name_of, print_summaries, print_whole
from r1searcher.retrieval.base import Retriever, SearchResult
from r1searcher.retrieval.links.base import Link
from r1searcher.rewards.format import answer_of_trajectory
from r1searcher.runs.resolved import limits_of, retriever_of


@dataclass(frozen=True, kw_only=True)
class AskRequest(ModelRequest):
    """What `r1s ask` was asked for."""

    question: str
    temperature: float = 0.0
    concurrency: int = 1


def run_evaluate(request: EvaluationRequest) -> None:
    """Evaluate with progress on standard error, the table on standard output."""
    errors = terminal.console(stderr=True)
    print_summaries(evaluate(request, errors))
    errors.print(f"report: {request.folder.path / 'report.html'}", soft_wrap=True)


def run_ask(request: AskRequest) -> None:
    """Run one episode and print its turns and documents as they come; the answer goes to standard output."""
    trajectory = asyncio.run(_ask(request, terminal.console(stderr=True)))
    answer = answer_of_trajectory(trajectory)
    if trajectory.stop is StopReason.ANSWERED and answer is not None:
        terminal.console().print(answer.strip(), soft_wrap=True)
    else:
        terminal.console(stderr=True).print(f"no answer: {trajectory.stop.value.replace('_', ' ')}", style="red")


async def _ask(request: AskRequest, console: SafeConsole) -> Trajectory:
    target = find_target(request.model, request.overrides)
    settings = target.settings
    if not settings.retrieval.is_set:
        raise InputError("no search engine is set: give --retriever INDEX-FOLDER or a URL")
    async with AsyncExitStack() as stack:
        retriever = retriever_of(settings, console.print)
        stack.push_async_callback(retriever.aclose)
        await retriever.health()
        console.print(f"starting {shown_url(target.model)}", style="dim")
        engine = await open_engine(stack, request, target)
        return await run_episode(
            request.question,
            (),
            prompt_maker(settings, engine)(request.question),
            _PrintingGenerator(engine.generator(request.temperature, settings.seed), engine.tokenizer, console),
            _PrintingRetriever(retriever, settings.episode.max_document_words, console),
            engine.tokenizer,
            limits_of(settings),
        )


class _PrintingGenerator:
    """Prints each turn once it is complete."""

    def __init__(self, generator: TokenGenerator, tokenizer: Tokenizer, console: SafeConsole) -> None:
        self._generator, self._tokenizer, self._console = generator, tokenizer, console

    async def generate(self, token_ids: Sequence[int], max_new_tokens: int) -> Generation:
        generation = await self._generator.generate(token_ids, max_new_tokens)
        text = self._tokenizer.decode(generation.token_ids).strip()
        self._console.print(outside(text, "bold"), soft_wrap=True)
        return generation


class _PrintingRetriever(Link):
    """Prints what each search found."""

    def __init__(self, retriever: Retriever, words: int, console: SafeConsole) -> None:
        super().__init__(retriever)
        self._words, self._console = words, console

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        results = await self._retriever.search(queries, top_k)
        for hits in (result.hits for result in results if result.error is None):
            for number, hit in enumerate(hits, start=1):
                text = " ".join(hit.passage.text.split()[: self._words])
                parts = (
                    outside(f"  {number}. ", "cyan"),
                    outside(hit.passage.title, "italic"),
                    outside(f"  {text}", "dim"),
                )
                self._console.print(Text.assemble(*parts), soft_wrap=True)
            if not hits:
                self._console.print("  nothing found", style="cyan")
        return results


def print_scores(
    files: Sequence[Path], as_json: bool, judge: str | None = None, judge_model: str = "", dataset: str | None = None
) -> None:
    """Score predictions files; one JSON object per file and dataset, or a table. Verdicts of a `judge` are kept beside
    the file. `dataset` names the dataset of all rows; without it they, or else the file's name, say it."""
    scored = [(file, _scored(file, judge, judge_model, dataset)) for file in files]
    parts = [(file, name, summarize(rows)) for file, all_rows in scored for name, rows in by_dataset(all_rows).items()]
    if as_json:
        for file, name, figures in parts:
            terminal.json_line({"file": str(file), "dataset": name or None, **figures.as_json()})
        return
    reports = _labeled(parts)
    print_summaries(reports)
    for label, figures in reports.items():
        if not figures.official:
            known = ", ".join(DATASETS)
            terminal.console().print(
                f"{label}: no official metrics: it names none of {known}; see --dataset", soft_wrap=True
            )


def _labeled(parts: Sequence[tuple[Path, str, MetricSummary]]) -> dict[str, MetricSummary]:
    """Reports by the name of their file, or its path where files have the same name, with the dataset if a file has
    several."""
    paths = list(dict.fromkeys(file for file, _, _ in parts))
    reports: dict[str, MetricSummary] = {}
    for file, dataset, figures in parts:
        short = [path.name for path in paths].count(file.name) == 1
        several = len({name for path, name, _ in parts if path == file}) > 1
        label = (file.name if short else str(file)) + (f": {dataset or 'no dataset'}" if several else "")
        same, number = label, 1
        while label in reports:
            number += 1
            label = f"{same} ({number})"
        reports[label] = figures
    return reports


def _scored(file: Path, judge: str | None, judge_model: str, dataset: str | None) -> list[Scored]:
    if judge is None:
        scored = score_file(file, os.cpu_count() or 1, dataset or "")
    else:
        ask = Judge(judge, judge_model, file.with_suffix(".judge.jsonl"))
        scored = [score_prediction(prediction, dataset or "") for prediction in ask(list(read_predictions(file)))]
    return scored


def print_comparison(a: Path, b: Path, as_json: bool, dataset: str | None = None) -> None:
    """Compare two predictions files. `dataset` names the dataset of all rows."""
    comparison = compare(_scored(a, None, "", dataset), _scored(b, None, "", dataset))
    if as_json:
        terminal.json_line(comparison.as_json())
        return
    table = Table(box=None, padding=(0, 1))
    for heading in ("", "A", "B", "B - A [95 %]", "p", "better", "worse", "significant?"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for metric, d in comparison.differences.items():
        table.add_row(
            name_of(metric),
            f"{comparison.a[metric]:.3f}",
            f"{comparison.b[metric]:.3f}",
            f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]",
            f"{d.p:.3f}",
            str(d.better),
            str(d.worse),
            "yes" if d.significant else "no",
        )
    out = terminal.console()
    out.print(f"{comparison.n} questions in both; A is {a}, B is {b}", soft_wrap=True)
    for file, missing in ((a, comparison.only_a), (b, comparison.only_b)):
        if missing:
            out.print(f"{missing} questions are only in {file} and are left out", soft_wrap=True)
    for scorer in comparison.official:
        out.print(f"official metrics: {scorer}", soft_wrap=True)
    print_whole(out, table)
