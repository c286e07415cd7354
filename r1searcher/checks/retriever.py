"""Whether the retriever answers."""

import asyncio
from contextlib import aclosing

from r1searcher.checks.base import RL_STAGES, Check, StageInputs, require_setting
from r1searcher.retrieval.base import Health
from r1searcher.retrieval.urls import open_retriever


def _retriever(inputs: StageInputs) -> None:
    """The retriever responds to a query."""
    url = inputs.settings.retrieval.url
    require_setting("retrieval.url", url, "an index folder or a search engine's URL")
    query = inputs.train.questions[0].text if inputs.train and inputs.train.questions else "test"
    inputs.health = asyncio.run(_probed(url, query))


async def _probed(url: str, query: str) -> Health:
    async with aclosing(open_retriever(url)) as retriever:
        await retriever.search([query], 1)
        return await retriever.health()


retriever = Check(_retriever, stages=RL_STAGES)
