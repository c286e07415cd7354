"""What is evaluated: a model, the settings of its episodes, and the engine that samples from it."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r1searcher.common.http import shown_url
from r1searcher.common.terminal import error_line
from r1searcher.config.settings import Settings, load
from r1searcher.errors import InputError
from r1searcher.evaluation.engines import InferenceEngine, open_completions
from r1searcher.evaluation.rollouts import sampled_model
from r1searcher.models.demo import DEMO_MODEL, demo_model

STAGES_LAST_FIRST = ("stage2", "stage1", "sft")
TOP_K = 5
"""Documents per search in the paper's evaluation; its training uses 3."""


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """Which model to use, and how to run it.

    `model` is a run, a Hugging Face folder or name, "demo", or the URL of a completions server. `served_model` is the
    model's name at that URL, `tokenizer` the folder or name of its tokenizer. `overrides` are settings ("episode.top_k"
    -> 5). `concurrency` is the number of episodes that run at the same time.
    """

    model: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    served_model: str | None = None
    tokenizer: str | None = None
    concurrency: int = 64


@dataclass(frozen=True)
class Target:
    """A model and the settings that its episodes are run with. `run` is the run that trained it, if known."""

    model: str
    settings: Settings
    run: Path | None

    @property
    def is_url(self) -> bool:
        return self.model.startswith(("http://", "https://"))

    def require_retriever(self) -> None:
        """Raises `InputError` if no search engine is set."""
        if not self.settings.retrieval.is_set:
            raise InputError("no search engine is set: give --retriever INDEX-FOLDER or a URL")


def find_target(model: str, overrides: Mapping[str, Any]) -> Target:
    """The weights, prompt and limits of `model`; see `ModelRequest`.

    A run has its own settings; anything else starts from the defaults with the paper's top-k. Raises `InputError`
    for a folder without a model.
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


async def open_engine(stack: AsyncExitStack, request: ModelRequest, target: Target) -> InferenceEngine:
    """The engine that samples from `target`, open as long as `stack` is."""
    if target.is_url:
        engine = await open_completions(target.model, request.served_model, request.tokenizer, request.concurrency)
        stack.push_async_callback(engine.aclose)
        return engine
    return await stack.enter_async_context(sampled_model(target.model, target.settings, request.concurrency))
