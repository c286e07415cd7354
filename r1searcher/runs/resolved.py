"""A run's settings in the terms of the rooms that use them."""

import json
import tomllib
from pathlib import Path

from r1searcher.config.settings import Settings, Stage
from r1searcher.episodes.loop import Budgets
from r1searcher.errors import InputError
from r1searcher.runs.folder import RunFolder


def read_run(run: RunFolder) -> tuple[Stage, Settings]:
    """Stage and settings of a run folder, as `take_up` wrote them."""
    try:
        stage: Stage = json.loads(run.manifest.read_text("utf-8"))["stage"]
        return stage, Settings.model_validate(tomllib.loads(run.config.read_text("utf-8")))
    except FileNotFoundError as error:
        raise InputError(f"{run.path} is not a run folder: it has no {Path(error.filename).name}") from None


def budgets_of(settings: Settings) -> Budgets:
    episode = settings.episode
    return Budgets(
        max_searches=episode.max_searches,
        max_new_tokens=episode.max_new_tokens,
        max_context=episode.max_context,
        top_k=episode.top_k,
        max_document_words=episode.max_document_words,
    )
