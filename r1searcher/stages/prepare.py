"""From settings to a run folder that the engine can train in. Everything is checked first; nothing is started."""

import hashlib
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tomli_w

from r1searcher.checks.base import StageInputs
from r1searcher.checks.runner import require_checks
from r1searcher.common.files import write_json, write_text, writing
from r1searcher.common.http import shown_url
from r1searcher.common.manifest import Kind, resumes
from r1searcher.common.section import flat, short
from r1searcher.common.versions import versions
from r1searcher.config.settings import Settings, Stage
from r1searcher.engine.launch import prepare_rl
from r1searcher.engine.topology import device_of
from r1searcher.engine.training_rows import Prompt, write_prompts
from r1searcher.errors import InputError
from r1searcher.planning.derive import complete
from r1searcher.questions.named import Dataset
from r1searcher.questions.quality import overlap_warning
from r1searcher.questions.question import Question
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import REMEDY, RunManifest, read_manifest
from r1searcher.runs.resolved import read_run

SAME = ("stage", "device", "settings_sha256", "data_sha256", "prompt_sha256", "index", "traces_sha256")
"""Keys of the manifest that must be equal for a run to be resumed; versions and machine may change."""

SHOWN = 5
"""Changed settings that an error names."""

RUN = Kind(
    noun="run",
    damaged=REMEDY,
    another="choose another --name, or remove the folder to start again: rm -r {folder}",
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """The checked inputs of a stage, with complete settings. `warnings` are about its questions, one sentence each;
    `derived` has a sentence per setting that was derived."""

    settings: Settings
    questions: Sequence[Question]
    resuming: bool
    warnings: tuple[str, ...] = ()
    derived: tuple[str, ...] = ()


def prepare_stage(stage: Stage, settings: Settings, run: RunFolder) -> Prepared:
    """Complete the settings, run every check, then write the run folder, or resume its run.

    Raises `InputError` with every problem found.
    """
    derived = complete(settings, stage)
    inputs = StageInputs(stage, derived.settings)
    require_checks(inputs)
    # The engine's workers may have another working directory.
    settings = derived.settings.model_copy(update={"retrieval": settings.retrieval.absolute()})
    train, health = inputs.train, inputs.health
    assert train is not None  # else a check has found a problem
    assert health is not None
    manifest = {
        **manifest_of(stage, settings, derived.reasons),
        "prompt_sha256": sha256(inputs.prompt.encode()),
        "questions": len(train.questions),
        "data_sha256": train.sha256,
        "index": asdict(health),
    }
    resuming = check_resumable(run, settings, manifest)
    if not resuming:
        with writing(run.path):
            run.path.mkdir(parents=True, exist_ok=True)
        write_prompts(run, list(map(Prompt, inputs.prompts, train.questions)), settings)
    prepare_rl(settings, run, Path(inputs.model))
    write_run_metadata(run, settings, None if resuming else manifest)
    return Prepared(settings, train.questions, resuming, warnings_on(train, inputs.held_out), derived.reasons)


def warnings_on(train: Dataset, held_out: Dataset | None) -> tuple[str, ...]:
    """Warnings about the questions of a stage."""
    warnings = [f"data.train: {note}" for note in train.warnings]
    if held_out is not None:
        overlap = overlap_warning(held_out.questions, train.questions)
        warnings += [f"data.held_out: {note}" for note in (*held_out.warnings, *overlap)]
    return tuple(warnings)


def manifest_of(stage: Stage, settings: Settings, reasons: Sequence[str] = ()) -> dict[str, Any]:
    """What identifies a run: versions, machine, seed and settings hash; and the reasons for derived settings."""
    return {
        "stage": stage,
        "seed": settings.seed,
        "device": device_of(settings),
        "settings_sha256": settings_sha256(settings),
        "derived": list(reasons),
        "versions": versions(),
        "machine": {"system": platform.platform(), "processor": processor()},
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def check_resumable(run: RunFolder, settings: Settings, manifest: dict[str, Any]) -> bool:
    """Whether the folder contains this same run, to be resumed.

    Raises `InputError` for a folder of another run, which is never overwritten, and for a damaged one.
    """
    before = read_manifest(run)
    if before is None:
        return False
    if run.config.exists() and before.stage == manifest["stage"]:
        # The engine reads its settings from there: a damaged or edited file is rejected before anything is started.
        then = read_run(run)[1]
        if settings_sha256(then) != before.settings_sha256:
            raise InputError(
                f"{run.config} does not have the settings that {run.manifest.name} identifies: restore it, or remove "
                f"the folder to start again: rm -r {run.path}"
            )
        _require_the_same(run, then, settings)
    return resumes(run.manifest, RunManifest, manifest, RUN, SAME)


def _require_the_same(run: RunFolder, then: Settings, now: Settings) -> None:
    """Raises `InputError` that names the settings that have changed since the run was started.

    A checkpoint is resumed with the number of GPUs and the data that it was written with: DeepSpeed cannot divide the
    optimizer's states again, and the order of the questions depends on the settings.
    """
    before, after = flat(identity(then).model_dump(mode="json")), flat(identity(now).model_dump(mode="json"))
    changed = [key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)]
    if changed:
        said = "; ".join(f"{key} was {_shown(before.get(key))}, is {_shown(after.get(key))}" for key in changed[:SHOWN])
        more = f"; and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        raise InputError(
            f"{run.path} holds a run with other settings ({said}{more}): resume it with those it was started with, or "
            f"{RUN.another.format(folder=run.path)}"
        )


def _shown(value: Any) -> str:
    return short(shown_url(value) if isinstance(value, str) and "://" in value else value)


def identity(settings: Settings) -> Settings:
    """The settings without those that a resumed run may change: which cluster it is trained on."""
    return settings.model_copy(update={"engine": settings.engine.model_copy(update={"ray_address": None})})


def settings_sha256(settings: Settings) -> str:
    return sha256(identity(settings).model_dump_json().encode())


def write_run_metadata(run: RunFolder, settings: Settings, manifest: dict[str, Any] | None) -> None:
    """Write settings and manifest. Call it last: a folder with a manifest has everything that the engine needs.

    `manifest` None: the one that is there is kept, and the settings may have the address of another cluster.
    """
    write_text(run.config, tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True)))
    if manifest is not None:
        write_json(run.manifest, manifest)


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
