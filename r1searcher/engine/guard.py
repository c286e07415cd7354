"""Whether the rollouts still come from the weights that are trained.

`vllm_kl` is OpenRLHF's own figure: the mean, over the tokens of a step, of the log-probability that vLLM sampled a
token with, less the one that the trainer gives it before its update. With the same weights on both sides it is
rounding noise; weights that no longer reach vLLM show in it, and nowhere else.
"""

import math
from collections.abc import Mapping
from typing import Literal

LIMITS: dict[str, float] = {"fp32": 1e-3, "mixed": 1e-2, "bf16": 1e-2}
"""Largest |vllm_kl| by precision: ten and more times what synchronous runs show."""


def limit_for(precision: Literal["bf16", "fp32", "mixed"]) -> float:
    return LIMITS[precision]


def rollout_drift(metrics: Mapping[str, float], limit: float) -> str | None:
    """Why a step's metrics can't be trusted, or None.

    >>> rollout_drift({"vllm_kl": 0.2}, 1e-2)
    'vllm_kl is 0.2, over the limit of 0.01: the rollouts no longer come from the trained weights'
    """
    if "vllm_kl" not in metrics:
        return "the engine did not report vllm_kl, so nothing tells whether the rollouts come from the trained weights"
    kl = metrics["vllm_kl"]
    if math.isfinite(kl) and abs(kl) <= limit:
        return None
    return f"vllm_kl is {kl:.3g}, over the limit of {limit:g}: the rollouts no longer come from the trained weights"
