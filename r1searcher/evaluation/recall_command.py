"""`r1s recall`: retrievers side by side on the same questions."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from r1searcher.common import terminal
from r1searcher.common.files import read_toml, write_json, writing
from r1searcher.common.records import problem_in
from r1searcher.common.terminal import SafeConsole, json_line, label, silence_native_output, visible
from r1searcher.common.versions import versions
from r1searcher.errors import InputError
from r1searcher.evaluation.corpus_answers import search_corpus
from r1searcher.evaluation.recall import Recall, measurable, measure
from r1searcher.evaluation.recall_report import Measured, Results, print_tables
from r1searcher.questions.named import open_dataset
from r1searcher.questions.question import Question
from r1searcher.report.recall_plot import require_plots, save_recall
from r1searcher.retrieval.base import EngineSettings, Health
from r1searcher.retrieval.links.base import Inner
from r1searcher.retrieval.links.retry import RetryingRetriever
from r1searcher.retrieval.registry import settings_of

_RETRY_S = 60.0
"""How long a search is tried again while the retriever is down, once it has answered."""

_NAME = re.compile(r"[\w.-]+")
_TABLES: TypeAdapter[dict[str, EngineSettings]] = TypeAdapter(dict[str, Inner])


@dataclass(frozen=True, kw_only=True)
class RecallRequest:
    """The arguments of `r1s recall`.

    `retrievers` are URLs or chains, each optionally as `NAME=URL`; `config` is a TOML file whose keys are names and
    whose values are URLs or tables of retrievers. `exhaustive` is a corpus or an embedded index.
    """

    retrievers: Sequence[str] = ()
    config: Path | None = None
    dataset: str
    data_dir: Path | None = None
    limit: int | None = None
    concurrency: int = 1
    exhaustive: str | None = None
    plot: Path | None = None
    output: Path | None = None
    as_json: bool = False


def run_recall(request: RecallRequest) -> None:
    """Print how often each retriever finds a gold answer, and write what was requested. Warnings go to standard error.

    Raises `InputError` if a file to write exists already and if no question can be measured, before any search, and the
    errors of retrievers: a search that fails is never counted as a miss.
    """
    for file, option in ((request.plot, "--plot"), (request.output, "--output")):
        if file:
            _require_new(file, option)
    if request.plot:
        require_plots(request.plot)
    engines = named_retrievers(request.retrievers, request.config)
    errors = terminal.console(stderr=True)
    data = open_dataset(request.dataset, request.data_dir, limit=request.limit)
    for warning in data.warnings:
        errors.print(f"{data.name}: {warning}", soft_wrap=True)
    questions = measurable(data.questions)
    if not questions:
        raise InputError(
            f"{request.dataset} has only yes-or-no questions, for which recall means nothing: choose another dataset"
        )
    silence_native_output()
    healths = asyncio.run(_healths(engines))  # a wrong address is an error before anything that takes long
    corpus = search_corpus(request.exhaustive, questions, errors) if request.exhaustive is not None else None
    recalls = asyncio.run(_recalls(engines, questions, request.concurrency, errors))
    measured = {name: Measured(engine, healths[name], recalls[name]) for name, engine in engines.items()}
    results = Results(data, questions, measured, corpus, request.concurrency)
    for note in results.notes():
        errors.print(note, soft_wrap=True)
    if request.as_json:
        json_line(results.as_json())
    else:
        print_tables(results)
    if request.output:
        write_json(request.output, {**results.as_json(), "versions": versions(), "rows": list(results.rows())})
    if request.plot:
        save_recall(results.curves(), request.plot, f"{data.name}, {len(questions):,} questions")


def _require_new(file: Path, option: str) -> None:
    """Raises `InputError` for a file that exists, and `FileError` for one that cannot be written."""
    with writing(file):
        if file.exists():
            raise InputError(f"{file} exists: remove it, or choose another file with {option}")
        file.parent.mkdir(parents=True, exist_ok=True)


def named_retrievers(urls: Sequence[str], config: Path | None) -> dict[str, EngineSettings]:
    """Settings by name, first those of the URLs; the name of a URL without one is the URL without its secrets.

    Raises `InputError` if there is none, for a wrong one, and for two of the same name.
    """
    pairs = [_named(url) for url in urls]
    pairs += _tables(config).items() if config else []
    if not pairs:
        raise InputError(
            "Give at least one retriever: an index folder, a URL or a chain, or a file of them (--config)."
        )
    found: dict[str, EngineSettings] = {}
    for name, engine in pairs:
        if name in found:
            raise InputError(f"two retrievers are named {visible(name)}: give each another name with NAME=URL")
        found[name] = engine
    return found


def _named(text: str) -> tuple[str, EngineSettings]:
    name, equals, url = text.partition("=")
    if equals and _NAME.fullmatch(name):
        return name, settings_of(url)
    engine = settings_of(text)
    return engine.shown, engine


def _tables(config: Path) -> Mapping[str, EngineSettings]:
    try:
        return _TABLES.validate_python(read_toml(config, "the file of retrievers"))
    except ValidationError as error:
        raise InputError(f"the file of retrievers {config}: {problem_in(error)}") from None


async def _healths(engines: Mapping[str, EngineSettings]) -> dict[str, Health]:
    healths = {}
    for name, engine in engines.items():
        async with aclosing(engine.open()) as retriever:
            healths[name] = await retriever.health()
    return healths


async def _recalls(
    engines: Mapping[str, EngineSettings], questions: Sequence[Question], concurrency: int, errors: SafeConsole
) -> dict[str, Recall]:
    """Each retriever alone, one after the other: their times would otherwise depend on one another."""
    from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

    recalls = {}
    columns = (label("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with terminal.progress(*columns, console=errors) as progress:
        for name, engine in engines.items():
            shown = visible(name)

            def notify(sentence: str, shown: str = shown) -> None:
                errors.print(f"{shown}: {sentence}", soft_wrap=True)

            advance = partial(progress.advance, progress.add_task(shown[:40], total=len(questions)))
            async with aclosing(RetryingRetriever(engine.open(), _RETRY_S, notify)) as retriever:
                recalls[name] = await measure(retriever, questions, concurrency, advance)
    return recalls
