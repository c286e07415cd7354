"""OpenRLHF's stock multi-turn executor and ours, alternating per step, with the same searches, documents and stops."""

import os
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from openrlhf.utils.agent import AgentExecutorBase, AgentInstanceBase, MultiTurnAgentExecutor

from r1searcher.engine.openrlhf.executor import AgentExecutor as Ours
from r1searcher.episodes.documents import block_of, documents_of
from r1searcher.episodes.protocol import Query
from r1searcher.retrieval.base import hits_of
from r1searcher.retrieval.registry import open_retriever
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import finished_steps
from r1searcher.runs.resolved import protocol_of, read_run

RUN = RunFolder(Path(os.environ["R1S_RUN"]))
_, SETTINGS = read_run(RUN)
PROTOCOL = protocol_of(SETTINGS)
RETRIEVER = open_retriever(SETTINGS.retrieval.engine)


class AgentInstance(AgentInstanceBase):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.searches = 0

    async def step(self, states: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        asked = PROTOCOL.read_turn(states["action_text"])
        done = not isinstance(asked, Query) or self.searches == SETTINGS.episode.max_searches
        feedback = ""
        if isinstance(asked, Query) and not done:
            [hits] = await hits_of(RETRIEVER, [asked.text], SETTINGS.episode.top_k)
            feedback = block_of(documents_of(hits, PROTOCOL), PROTOCOL, SETTINGS.episode.max_document_words)
            self.searches += 1
        return {
            "rewards": torch.tensor(float(not done)),
            "scores": torch.tensor(float(self.searches)),
            "environment_feedback": feedback,
            "done": done,
            "sampling_params": states["sampling_params"],
            "extra_logs": {"searches": torch.tensor(float(self.searches))},
        }


class Stock(MultiTurnAgentExecutor):
    def __init__(self) -> None:
        super().__init__(AgentInstance)

    async def execute(self, prompt: str, label: str, sampling_params: Any, *args: Any, **options: Any) -> Any:
        sampling = deepcopy(sampling_params)  # the samples of a question share it, and the stock executor writes to it
        sampling.stop, sampling.include_stop_str_in_output = list(PROTOCOL.stop_strings), True
        return await super().execute(prompt, label, sampling, *args, **options)


class AgentExecutor(AgentExecutorBase):
    """The first step and every other one after it use the stock executor."""

    def __init__(self) -> None:
        self.executors = (Stock(), Ours())

    async def execute(self, *args: Any, **options: Any) -> Any:
        return await self.executors[finished_steps(RUN) % 2].execute(*args, **options)
