"""The values of `rl.algorithm`: how OpenRLHF 0.11.2 computes advantages from rewards, and its loss.

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


_LOSS_MODES = {"token": "token-mean", "trajectory": "seq-mean-token-mean"}
"""What has the same weight in an update -> OpenRLHF's name for it."""

_TRAJECTORIES_ALIKE = {"actor.loss_agg_mode": _LOSS_MODES["trajectory"]}

ALGORITHMS: Registry[Algorithm] = Registry(
    "algorithm",
    "r1searcher.algorithms",
    {
        "reinforce++": Algorithm(
            estimator="reinforce",
            description="the reward, normalized over the step",
            paper="arXiv 2501.03262",
        ),
        "reinforce++-baseline": Algorithm(
            estimator="reinforce_baseline",
            description="the reward minus the mean of the question's samples, normalized over the step; the released "
            "Qwen script",
            paper="arXiv 2501.03262",
            needs_group=True,
        ),
        "rloo": Algorithm(
            estimator="rloo",
            description="the reward minus the mean of the question's other samples",
            paper="arXiv 2402.14740",
            needs_group=True,
        ),
        "grpo": Algorithm(
            estimator="group_norm",
            description="the reward minus the mean of the question's samples, over their standard deviation; KL in the "
            "loss; each trajectory has the same weight",
            paper="arXiv 2402.03300",
            flags={
                "algo.kl.use_loss": True,
                "algo.kl.estimator": "k3",
                **_TRAJECTORIES_ALIKE,
            },
            needs_group=True,
        ),
        "dr-grpo": Algorithm(
            estimator="dr_grpo",
            description="the reward minus the mean of the question's samples; each token has the same weight",
            paper="arXiv 2503.20783",
            needs_group=True,
        ),
        "flash-reinforce": Algorithm(
            estimator="flash_reinforce",
            description="the reward minus its mean over the step; trajectories that trainer and vLLM disagree on are "
            "dropped",
            paper="FlashREINFORCE, ResearchGate 414274571",
            flags={
                "algo.advantage.is_correction_level": "seq",
                "algo.advantage.is_correction_gating": "binary_kl",
                "algo.advantage.is_correction_threshold": (0.01,),  # nats per token; OpenRLHF has no default for it
                **_TRAJECTORIES_ALIKE,
            },
        ),
        "gspo": Algorithm(
            estimator="group_norm",
            description="the advantage of grpo; the loss clips a trajectory's ratio to vLLM's probabilities",
            paper="arXiv 2507.18071",
            flags={
                "actor.policy_loss_type": "gspo",
                **_TRAJECTORIES_ALIKE,
            },
            needs_group=True,
        ),
        "ppo": Algorithm(
            estimator="gae",
            description="the reward minus what a trained critic predicts at the token, normalized over the step",
            paper="arXiv 1707.06347",
            needs_critic=True,
        ),
    },
    Algorithm,
)


def require_algorithm(rl: RL) -> Algorithm:
    """The algorithm that the settings name. Raises `InputError` for one that is unknown or does not fit them."""
    algorithm = ALGORITHMS.require(rl.algorithm, "rl.algorithm")
    if algorithm.needs_group and rl.samples_per_question < 2:
        raise InputError(
            f"rl.samples_per_question = {rl.samples_per_question}: rl.algorithm = {rl.algorithm!r} compares samples of "
            "a question and needs at least 2"
        )
    if rl.kl_in_loss and (rl.kl_estimator or algorithm.flags.get("algo.kl.estimator", "k1")) == "k1":
        raise InputError("rl.kl_in_loss = true: the gradient of k1 is 0 on average; set rl.kl_estimator = k2 or k3")
    if rl.loss_aggregation == "token" and algorithm.flags.get("actor.policy_loss_type") == "gspo":
        raise InputError(
            f'rl.loss_aggregation = "token": rl.algorithm = {rl.algorithm!r} weights trajectories; set "trajectory"'
        )
    if "train.async_enable" in algorithm.flags:
        raise InputError(f"rl.algorithm = {rl.algorithm!r} sets train.async_enable: set engine.async_steps instead")
    if algorithm.flags.get("algo.advantage.is_correction_level") == "off":
        raise InputError(
            f"rl.algorithm = {rl.algorithm!r} sets is_correction_level = off: vLLM then reports no log-probabilities, "
            "and nothing tells whether rollouts come from the trained weights; use token or seq"
        )
    return algorithm


def has_critic(rl: RL) -> bool:
    """Whether a critic is trained. An unknown algorithm, which `require_algorithm` reports, has none."""
    algorithm = ALGORITHMS.get(rl.algorithm)
    return algorithm is not None and algorithm.needs_critic


def algorithm_flags(rl: RL) -> Mapping[str, FlagValue]:
    """OpenRLHF's flags for the algorithm, and for the settings of its loss, which take precedence over its own flags.

    Settings that are not set have no flag here, so that the algorithm's or OpenRLHF's default holds.
    """
    algorithm = require_algorithm(rl)
    chosen: Mapping[str, FlagValue] = {
        "algo.kl.estimator": rl.kl_estimator,
        "algo.kl.use_loss": rl.kl_in_loss,
        "actor.eps_clip_low_high": rl.clip_range,
        "actor.dual_clip": rl.dual_clip,
        "actor.loss_agg_mode": _LOSS_MODES[rl.loss_aggregation] if rl.loss_aggregation else None,
        "actor.entropy_coef": rl.entropy_coef,
    }
    critic: Mapping[str, FlagValue] = {
        "algo.advantage.lambd": rl.gae_lambda,
        "critic.adam.lr": rl.critic_learning_rate,
        "critic.lr_scheduler": "constant",
        "critic.lr_warmup_ratio": 0,
        "critic.value_clip": rl.value_clip_range,
    }
    return {
        "algo.advantage.estimator": algorithm.estimator,
        # Drops tokens that vLLM and the trainer disagree on.
        "algo.advantage.is_correction_level": "token",
        **(critic if algorithm.needs_critic else {}),
        **algorithm.flags,
        **{flag: value for flag, value in chosen.items() if value is not None},
    }
