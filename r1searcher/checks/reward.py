"""Whether the reward of the settings can be built."""

from r1searcher.checks.base import RL_STAGES, Check, StageInputs
from r1searcher.runs.resolved import reward_of


def _reward(inputs: StageInputs) -> None:
    reward_of(inputs.settings, "stage1" if inputs.stage == "stage1" else "stage2")


reward = Check(_reward, stages=RL_STAGES)
