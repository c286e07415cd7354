"""Whether the reward and the algorithm of the settings exist."""

from r1searcher.checks.base import RL_STAGES, Check, StageInputs
from r1searcher.engine.openrlhf.algorithms import require_algorithm
from r1searcher.runs.resolved import reward_of


def _reward(inputs: StageInputs) -> None:
    """The recipe, reward parts and format rules exist, and their parameters are valid."""
    reward_of(inputs.settings, "stage1" if inputs.stage == "stage1" else "stage2")


def _algorithm(inputs: StageInputs) -> None:
    """`rl.algorithm` exists and fits the other settings of `[rl]`."""
    require_algorithm(inputs.settings.rl)


algorithm = Check(_algorithm, stages=RL_STAGES)
reward = Check(_reward, stages=RL_STAGES)
