"""The toy environment on OpenRLHF's stock multi-turn executor: a document for each query, a reward for asking."""

import json
import os
from copy import deepcopy
from pathlib import Path

import torch
from openrlhf.utils.agent import AgentInstanceBase, MultiTurnAgentExecutor

STOP = "<|end_of_query|>"
DOCUMENTS = "\n\n<|begin_of_documents|>\n(1)Title: barado Text: barado is in cordell.\n<|end_of_documents|>\n\n"
MAX_SEARCHES = 2


class AgentInstance(AgentInstanceBase):
    def __init__(self, *args, **kwargs):
        self.searches = 0

    async def step(self, states, **kwargs):
        asked = states["action_text"].endswith(STOP)
        self.searches += asked
        done = not asked or self.searches == MAX_SEARCHES
        return {
            "rewards": torch.tensor(float(asked) / MAX_SEARCHES),
            "scores": torch.tensor(self.searches / MAX_SEARCHES),
            "environment_feedback": "" if done else DOCUMENTS,
            "done": done,
            "sampling_params": states["sampling_params"],
            "extra_logs": {"searches": torch.tensor(float(self.searches))},
        }


class AgentExecutor(MultiTurnAgentExecutor):
    def __init__(self):
        super().__init__(AgentInstance)

    async def execute(self, prompt, label, sampling_params, max_length, hf_tokenizer, llm_engine, images=None):
        sampling = deepcopy(sampling_params)
        sampling.stop, sampling.include_stop_str_in_output = [STOP], True
        out = await super().execute(prompt, label, sampling, max_length, hf_tokenizer, llm_engine, images)
        with (Path(os.environ["R1S_RUN"]) / "seen.jsonl").open("a") as seen:
            seen.write(json.dumps({"id": json.loads(label)["id"], "reward": out["reward"]}) + "\n")
        return out
