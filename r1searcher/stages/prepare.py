"""From settings to a run folder that the engine can work from: everything checked first, nothing started."""

import asyncio
import hashlib
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from r1searcher.common.files import write_json, write_text, writing
from r1searcher.common.manifest import Kind, resumes
from r1searcher.common.terminal import error_line
from r1searcher.common.versions import versions
from r1searcher.config.settings import Settings, Stage
from r1searcher.engine.launch import prepare_rl
from r1searcher.engine.openrlhf.algorithms import require_algorithm
from r1searcher.engine.openrlhf.versions import require_tested_versions, require_training_packages
from r1searcher.engine.topology import device_of
from r1searcher.engine.training_rows import Prompt, write_prompts
from r1searcher.episodes.loop import max_prompt_tokens
from r1searcher.episodes.prompt import PromptMaker, prompt_text
from r1searcher.episodes.tokens import HuggingFaceTokenizer, load_tokenizer
from r1searcher.errors import InputError, R1Error
from r1searcher.models.demo import model_folder
from r1searcher.questions.named import Dataset, open_dataset
from r1searcher.questions.quality import overlap_warning
from r1searcher.questions.question import Question
from r1searcher.retrieval.base import EngineSettings, EpisodeContext, Health, bind, hits_of
from r1searcher.retrieval.registry import open_retriever
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import REMEDY, RunManifest
from r1searcher.runs.resolved import limits_of, protocol_of, read_run, reward_of

SAME = ("stage", "settings_sha256", "data_sha256", "prompt_sha256", "index", "traces_sha256")
"""Keys of the manifest that must be equal for a run to be resumed; versions and machine may change."""

RUN = Kind(
    noun="run",
    damaged=REMEDY,
    another="choose another --name, or remove the folder to start again: rm -r {folder}",
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a stage starts from, checked. `warnings` says what is odd about its questions, a sentence each."""

    run: RunFolder
    stage: Stage
    settings: Settings
    questions: Sequence[Question]
    resuming: bool
    warnings: tuple[str, ...] = ()


class Checks:
    """Collects what is wrong, so that a user hears everything at once."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    @contextmanager
    def each(self) -> Iterator[None]:
        """A problem inside is noted; what comes behind goes on."""
        try:
            yield
        except R1Error as error:
            self.problems.append(str(error))

    def end(self) -> None:
        if self.problems:
            raise InputError("nothing was started:\n" + "\n".join(f"  {problem}" for problem in self.problems))


def prepare_stage(stage: Stage, settings: Settings, run: RunFolder) -> Prepared:
    """Check settings, data, model and search engine together, then write the run folder (or take up its run).

    Raises `InputError` with every problem found.
    """
    checks = Checks()
    data = settings.data
    train: Dataset | None = None
    held_out: Dataset | None = None
    model = settings.model.path
    health: Health | None = None
    prompts: list[str] = []
    with checks.each():
        require_training_packages()
    with checks.each():
        reward_of(settings, "stage1" if stage == "stage1" else "stage2")
    with checks.each():
        require_setting("data.train", data.train, "a file of questions or a dataset's name")
        train = open_dataset(data.train, data.folder, limit=data.limit, strict=True, training=True)
    if data.held_out:
        with checks.each():
            held_out = open_dataset(data.held_out, data.folder, strict=True)
    questions = train.questions if train else ()
    with checks.each():
        needed_for_a_step = settings.rl.questions_per_step
        if questions and len(questions) < needed_for_a_step:
            raise InputError(
                f"data.train: {len(questions)} questions don't fill one step of rl.questions_per_step = "
                f"{needed_for_a_step}"
            )
    with checks.each():
        require_algorithm(settings.rl)
    with checks.each():
        require_tested_versions(device_of(settings))
    with checks.each():
        retrieval = settings.retrieval
        require_setting("retrieval.url", retrieval.url or retrieval.kind, "an index folder or a search engine's URL")
        health = probe(retrieval.engine, questions[0] if questions else Question("", "test", ()))
    with checks.each():
        require_setting("model.path", settings.model.path, "a Hugging Face folder or name")
        text = prompt_text(settings.model.prompt, protocol_of(settings))
        if not checks.problems:
            model = model_folder(settings.model.path, error_line)  # a download perhaps, so after all other checks
            prompts = rendered(settings, model, text, questions)
    checks.end()
    assert train is not None  # else `checks` has ended this

    manifest = {
        **manifest_of(stage, settings),
        "prompt_sha256": sha256(text.encode()),
        "questions": len(questions),
        "data_sha256": train.sha256,
        "index": {"name": health.name, "passages": health.passages, "fingerprint": health.fingerprint}
        if health
        else None,
    }
    resuming = check_resumable(run, manifest)
    if not resuming:
        with writing(run.path):
            run.path.mkdir(parents=True, exist_ok=True)
        write_prompts(run, list(map(Prompt, prompts, questions)), settings)
        prepare_rl(settings, run, Path(model))
        write_run_metadata(run, settings, manifest)
    return Prepared(run, stage, settings, questions, resuming, warnings_on(train, held_out))


def warnings_on(train: Dataset, held_out: Dataset | None) -> tuple[str, ...]:
    """What is odd about a stage's questions."""
    warnings = [f"data.train: {note}" for note in train.warnings]
    if held_out is not None:
        overlap = overlap_warning(held_out.questions, train.questions)
        warnings += [f"data.held_out: {note}" for note in (*held_out.warnings, *overlap)]
    return tuple(warnings)


def rendered(settings: Settings, model: str, text: str, questions: Sequence[Question]) -> list[str]:
    """Every question's prompt, for the tokenizer of `model` (a folder, or a name on the hub).

    Raises `InputError` for those that leave no room for a turn: questions aren't cut.
    """
    try:
        tokenizer = load_tokenizer(model, settings.model.trust_remote_code)
    except InputError as error:
        raise InputError(f"model.path: {error}") from error
    ours = HuggingFaceTokenizer(tokenizer)
    make = PromptMaker(text, protocol_of(settings), settings.model.chat_template, tokenizer, ours.special_tokens)
    prompts = [make(question.text) for question in questions]
    room = max_prompt_tokens(limits_of(settings))
    long = [q.id for q, prompt in zip(questions, prompts, strict=True) if len(ours.encode(prompt)) > room]
    if long:
        raise InputError(
            f"data.train: the prompts of {len(long)} questions (first: id {long[0]}) have more than {room} tokens and "
            "leave no room for a turn: raise episode.max_context or leave these rows out"
        )
    return prompts


def require_setting(key: str, value: str, what: str) -> None:
    if not value:
        raise InputError(f"{key} is not set: give {what} in the settings file or with --set {key}=…")


def probe(engine: EngineSettings, question: Question) -> Health:
    """Ask the search engine once, before anything is started."""
    episode = EpisodeContext(question=question.text, gold_answers=tuple(question.gold_answers), id=question.id)

    async def ask() -> Health:
        async with aclosing(open_retriever(engine)) as retriever:
            await hits_of(bind(retriever, episode), [question.text], 1)
            return await retriever.health()

    return asyncio.run(ask())


def manifest_of(stage: Stage, settings: Settings) -> dict[str, Any]:
    """What identifies a run: versions, machine, seed and settings hash."""
    return {
        "stage": stage,
        "seed": settings.seed,
        "settings_sha256": settings_sha256(settings),
        "versions": versions(),
        "machine": {"system": platform.platform(), "processor": processor()},
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def check_resumable(run: RunFolder, manifest: dict[str, Any]) -> bool:
    """Whether the folder holds this very run, to be resumed.

    Raises `InputError` for a folder of another run, which is never overwritten, and for one that was damaged.
    """
    if not resumes(run.manifest, RunManifest, manifest, RUN, SAME):
        return False
    # The engine reads its settings from there: a damaged or edited file is refused before anything is started.
    if settings_sha256(read_run(run)[1]) != manifest["settings_sha256"]:
        raise InputError(
            f"{run.config} does not hold the settings that {run.manifest.name} names: restore it, or remove the folder "
            f"to start again: rm -r {run.path}"
        )
    return True


def settings_sha256(settings: Settings) -> str:
    return sha256(settings.model_dump_json().encode())


def write_run_metadata(run: RunFolder, settings: Settings, manifest: dict[str, Any]) -> None:
    """Write settings and manifest. Called last: a folder with a manifest has everything that the engine needs."""
    write_text(run.config, tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True)))
    write_json(run.manifest, manifest)


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
