"""Whether the retriever answers."""

import asyncio

from r1searcher.checks.base import RL_STAGES, Check, StageInputs, require_setting
from r1searcher.retrieval.base import EpisodeContext
from r1searcher.retrieval.probe import probed


def _retriever(inputs: StageInputs) -> None:
    """The retriever responds to a query."""
    retrieval = inputs.settings.retrieval
    require_setting("retrieval.url", retrieval.url or retrieval.kind, "an index folder or a search engine's URL")
    inputs.health = asyncio.run(probed(retrieval.engine, first_episode(inputs)))


def first_episode(inputs: StageInputs) -> EpisodeContext:
    """The episode of the first training question, to ask a retriever with."""
    if inputs.train is None or not inputs.train.questions:
        return EpisodeContext(question="test")
    first = inputs.train.questions[0]
    return EpisodeContext(question=first.text, gold_answers=tuple(first.gold_answers), id=first.id)


retriever = Check(_retriever, stages=RL_STAGES)
