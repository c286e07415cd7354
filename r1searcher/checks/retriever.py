"""Whether the retriever answers."""

import asyncio
from contextlib import aclosing

from r1searcher.checks.base import RL_STAGES, Check, StageInputs, require_setting
from r1searcher.questions.question import Question
from r1searcher.retrieval import open_retriever
from r1searcher.retrieval.base import EngineSettings, EpisodeContext, Health, bind, hits_of


def _retriever(inputs: StageInputs) -> None:
    """The retriever responds to a query."""
    retrieval = inputs.settings.retrieval
    require_setting("retrieval.url", retrieval.url or retrieval.kind, "an index folder or a search engine's URL")
    questions = inputs.train.questions if inputs.train else ()
    first = questions[0] if questions else Question("", "test", ())
    inputs.health = asyncio.run(_probed(retrieval.engine, first))


async def _probed(engine: EngineSettings, question: Question) -> Health:
    episode = EpisodeContext(question=question.text, gold_answers=tuple(question.gold_answers), id=question.id)
    async with aclosing(open_retriever(engine)) as retriever:
        await hits_of(bind(retriever, episode), [question.text], 1)
        return await retriever.health()


retriever = Check(_retriever, stages=RL_STAGES)
