"""Rules on the metrics of a stage: each is a function of the rows so far, evaluated after every step.

A rule returns an `Alarm` if the run can no longer be trusted, a `Notice` for what a person should look at, a `Stop` if
the stage has reached its goal, and None otherwise. It reads nothing else and has no state. Another package adds one
with the entry-point group `r1searcher.watch_rules`; every rule of an installed package is evaluated.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from r1searcher.common.registry import Registry
from r1searcher.config.settings import Settings
from r1searcher.errors import R1Error
from r1searcher.rewards.measures import LARGEST_STALENESS

Rows = Sequence[Mapping[str, float]]
"""One mapping per step, oldest first: `step` and every reported number. Numbers that are not finite are only in the
last row."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """Stops the run before this step's checkpoint is written. `message` says why, without the step."""

    message: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Ends the stage with this step, saved. `reason` in two words, `detail` with numbers."""

    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """The run continues. `message` is shown when a rule begins to return one, and its end when it no longer does."""

    message: str


Rule = Callable[[Rows, Settings], Alarm | Notice | Stop | None]

VLLM_KL_LIMITS: Mapping[str, float] = {"fp32": 1e-3, "mixed": 1e-2, "bf16": 1e-2}
"""Largest |vllm_kl| by precision: at least ten times the values of synchronous runs."""


SYNC_KL = "sync_kl"
"""Of a step with asynchronous rollouts: `vllm_kl` of some tokens that were sampled from the weights just sent."""


def rollout_drift(rows: Rows, settings: Settings) -> Alarm | Notice | None:
    """Whether the rollouts still come from the trained weights.

    `vllm_kl` is the mean, over the tokens of a step, of the log-probability that vLLM sampled a token with, minus the
    one that the trainer gives it before its update. With the same weights on both sides it is rounding noise; only this
    metric shows when weights no longer reach vLLM. Asynchronous rollouts are of older weights, so there the rule reads
    `sync_kl`, the same number for tokens sampled from the weights of the last sync. On GPUs (`engine.device` = "gpu" in
    the settings of a run there) the noise was never measured: the result past the default limit is a notice.

    >>> rollout_drift([{"step": 1, "vllm_kl": 0.2}], Settings())
    Alarm(message='vllm_kl is 0.2, over the limit of 0.01: the rollouts no longer come from the trained weights')
    """
    engine = settings.engine
    limit = VLLM_KL_LIMITS[engine.precision] if engine.vllm_kl_limit is None else engine.vllm_kl_limit
    name = SYNC_KL if engine.async_steps else "vllm_kl"
    kl = rows[-1].get(name)
    if kl is None:
        return Alarm(
            f"the engine did not report {name}, so it is unknown whether the rollouts come from the trained weights"
        )
    if math.isfinite(kl) and abs(kl) <= limit:
        return None
    over = f"{name} is {kl:.3g}, over the limit of {limit:g}"
    if math.isfinite(kl) and engine.device == "gpu" and engine.vllm_kl_limit is None:
        return Notice(
            f"{over}: the rollouts may no longer come from the trained weights. The limit was not measured on GPUs; "
            "set engine.vllm_kl_limit to stop there"
        )
    return Alarm(f"{over}: the rollouts no longer come from the trained weights")


def rollout_staleness(rows: Rows, settings: Settings) -> Alarm | None:
    """Whether the rollouts come from weights that are no older than `engine.async_steps` allows.

    The engine reports the staleness of asynchronous rollouts, and of others if it is not 0. It grows with every step if
    weights no longer reach vLLM.
    """
    limit = settings.engine.async_steps
    largest = rows[-1].get(LARGEST_STALENESS.name, math.inf if limit else 0.0)
    if largest <= limit:
        return None
    if math.isinf(largest):
        return Alarm(f"the engine did not report {LARGEST_STALENESS.name}: the age of the rollouts' weights is unknown")
    return Alarm(
        f"rollouts come from weights of {largest:.0f} steps before, and engine.async_steps = {limit}: weights do not "
        "reach vLLM after each update"
    )


def thresholds_reached(rows: Rows, settings: Settings) -> Stop | None:
    """Whether every measure in `[stop]` reached its threshold in each of the last `stop.patience` steps.

    Raises `R1Error` for a measure that no step reports.
    """
    thresholds, patience = settings.stop.thresholds, settings.stop.patience
    recent = rows[-patience:]
    if not thresholds or len(recent) < patience:
        return None
    for name, threshold in thresholds.items():
        if all(name not in row for row in recent):
            raise R1Error(
                f"the stage should end by {name!r}, but no metric has this name: {', '.join(map(str, recent[-1]))}"
            )
        if not all(row.get(name, -math.inf) >= threshold for row in recent):
            return None
    return Stop("thresholds reached", ", ".join(f"{name} {recent[-1][name]:.2f}" for name in thresholds))


RULES: Registry[Rule] = Registry(
    "watch rule",
    "r1searcher.watch_rules",
    {
        "rollout_drift": rollout_drift,
        "rollout_staleness": rollout_staleness,
        "thresholds_reached": thresholds_reached,
        "reward_falling": "r1searcher.watch.health:reward_falling",
        "searches_falling": "r1searcher.watch.health:searches_falling",
        "answers_falling": "r1searcher.watch.health:answers_falling",
        "documents_falling": "r1searcher.watch.health:documents_falling",
        "never_searches": "r1searcher.watch.health:never_searches",
        "nothing_to_learn": "r1searcher.watch.health:nothing_to_learn",
        "episodes_unfinished": "r1searcher.watch.health:episodes_unfinished",
        "search_limit": "r1searcher.watch.health:search_limit",
        "malformed_turns": "r1searcher.watch.health:malformed_turns",
        "unreadable_text": "r1searcher.watch.health:unreadable_text",
        "length_growing": "r1searcher.watch.health:length_growing",
        "not_finite": "r1searcher.watch.health:not_finite",
        "gradient_jump": "r1searcher.watch.health:gradient_jump",
        "retriever_slow": "r1searcher.watch.health:retriever_slow",
    },
    Callable,
)
"""Evaluated in this order: built-in alarms first."""
