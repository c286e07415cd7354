"""The values of `rl.algorithm`: how OpenRLHF 0.11.2 computes the advantage from a trajectory's reward.

Another package adds one by the entry-point group `r1searcher.algorithms`, whose entries are `Algorithm` objects.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from r1searcher.common.registry import Registry
from r1searcher.config.settings import RL
from r1searcher.errors import InputError

FlagValue = str | int | float | bool | tuple[float, ...] | tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """One algorithm: OpenRLHF's estimator for it, and its further requirements."""

    estimator: str
    """Value of `--algo.advantage.estimator`."""

    description: str
    """A phrase for the documentation."""

    paper: str = ""
    """arXiv number, or another reference."""

    flags: Mapping[str, FlagValue] = field(default_factory=dict)
    """Further flags of OpenRLHF without their dashes; they take precedence over ours."""

    needs_group: bool = False
    """Whether it compares the samples of a question, and so needs at least two."""

    needs_critic: bool = False
    """Whether a value model is trained in addition to the policy."""


ALGORITHMS: Registry[Algorithm] = Registry(
    "algorithm",
    "r1searcher.algorithms",
    {
        "reinforce": Algorithm(
            estimator="reinforce",
            description="REINFORCE++: the reward, normalized over the step",
            paper="arXiv 2501.03262",
        ),
        "reinforce_baseline": Algorithm(
            estimator="reinforce_baseline",
            description="REINFORCE++ with the mean of the question's samples as baseline; the released Qwen script",
            paper="arXiv 2501.03262",
            needs_group=True,
        ),
        "rloo": Algorithm(
            estimator="rloo",
            description="the reward minus the mean of the question's other samples",
            paper="arXiv 2402.14740",
            needs_group=True,
        ),
        "group_norm": Algorithm(
            estimator="group_norm",
            description="GRPO: the reward minus the mean of the question's samples, over their standard deviation",
            paper="arXiv 2402.03300",
            needs_group=True,
        ),
        "dr_grpo": Algorithm(
            estimator="dr_grpo",
            description="Dr. GRPO: as GRPO, not divided by the standard deviation",
            paper="arXiv 2503.20783",
            needs_group=True,
        ),
    },
)


def require_algorithm(rl: RL) -> Algorithm:
    """The algorithm that the settings name. Raises `InputError` for one that is unknown or does not fit them."""
    algorithm = ALGORITHMS.require(rl.algorithm, "rl.algorithm")
    if not isinstance(algorithm, Algorithm):
        raise InputError(f"rl.algorithm = {rl.algorithm!r}: its entry point is not an Algorithm, but {algorithm!r}")
    if algorithm.needs_group and rl.samples_per_question < 2:
        raise InputError(
            f"rl.samples_per_question = {rl.samples_per_question}: rl.algorithm = {rl.algorithm!r} compares samples of "
            "a question and needs at least 2"
        )
    if algorithm.flags.get("algo.advantage.is_correction_level") == "off":
        raise InputError(
            f"rl.algorithm = {rl.algorithm!r} sets is_correction_level = off: vLLM then reports no log-probabilities, "
            "and nothing tells whether rollouts come from the trained weights; use token or seq"
        )
    return algorithm
