"""A run's settings, converted for the packages that use them."""

from collections.abc import Callable
from typing import Any

from r1searcher.config.settings import Settings, Stage, read_resolved
from r1searcher.episodes.loop import EpisodeLimits
from r1searcher.episodes.prompt import PromptMaker, prompt_text
from r1searcher.episodes.protocol import PROTOCOLS, EpisodeProtocol
from r1searcher.episodes.protocols.r1_searcher import R1_SEARCHER
from r1searcher.episodes.trajectory import Author, Segment, StopReason, Trajectory
from r1searcher.errors import InputError
from r1searcher.retrieval import open_retriever
from r1searcher.retrieval.links.retry import RetryingRetriever
from r1searcher.rewards.recipes import RewardBreakdown, RewardedStage, recipe_parts, reward_function
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import read_manifest


def read_run(run: RunFolder) -> tuple[Stage, Settings]:
    """Stage and settings of a run folder. Raises `InputError` if either is damaged."""
    manifest = read_manifest(run)
    if manifest is None or not run.config.exists():
        missing = run.manifest if manifest is None else run.config
        raise InputError(f"{run.path} is not a run folder: {missing.name} is missing")
    return manifest.stage, read_resolved(run.config)


def protocol_of(settings: Settings) -> EpisodeProtocol:
    """Raises `InputError` if no installed package has the protocol."""
    return PROTOCOLS.require(settings.episode.protocol, "episode.protocol")


def prompt_maker_of(settings: Settings, tokenizer: Any, special_tokens: tuple[str, ...]) -> PromptMaker:
    """Prompts as the settings render them. `tokenizer` is a transformers tokenizer. Raises `InputError`."""
    protocol = protocol_of(settings)
    text = prompt_text(settings.model.prompt, protocol)
    return PromptMaker(text, protocol, settings.model.chat_template, tokenizer, special_tokens)


def limits_of(settings: Settings) -> EpisodeLimits:
    episode = settings.episode
    return EpisodeLimits(
        max_searches=episode.max_searches,
        max_new_tokens=episode.max_new_tokens,
        max_context=episode.max_context,
        top_k=episode.top_k,
        max_document_words=episode.max_document_words,
    )


def retriever_of(settings: Settings, notify: Callable[[str], None]) -> RetryingRetriever:
    """The retriever of a run, which waits out outages as the settings say. Raises what `open_retriever` raises."""
    return RetryingRetriever(open_retriever(settings.retrieval.engine), settings.retrieval.retry_timeout_s, notify)


def reward_of(settings: Settings, stage: RewardedStage | None = None) -> Callable[[Trajectory], RewardBreakdown]:
    """The reward of a stage: `reward.parts` if there are any, otherwise `reward.recipe` (its last stage if `stage`
    is None). Raises `InputError`, also where a part judges the tags of another protocol than the episodes'."""
    chosen = settings.reward
    parts = chosen.parts or recipe_parts(chosen.recipe, stage)
    reward = reward_function(parts, chosen.max_answer_words, chosen.format_rules)
    if settings.episode.protocol != R1_SEARCHER.name:  # such a part refuses any episode: find out before the first one
        nothing = Segment(Author.MODEL, "", ())
        reward(Trajectory("", (), (nothing,), (), StopReason.EOS_WITHOUT_ANSWER, settings.episode.protocol))
    return reward
