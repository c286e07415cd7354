"""Whether a retriever answers."""

from contextlib import aclosing

from r1searcher.retrieval.base import EngineSettings, EpisodeContext, Health, bind, hits_of


async def probed(engine: EngineSettings, episode: EpisodeContext) -> Health:
    """What the retriever says about itself, after a search for the episode's question.

    Raises `InputError` and `RetrieverError`, as opening and searching do.
    """
    async with aclosing(engine.open()) as retriever:
        await hits_of(bind(retriever, episode), [episode.question], 1)
        return await retriever.health()
