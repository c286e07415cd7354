"""Which cluster a run is trained on."""

import os
from collections.abc import Mapping

from r1searcher.config.settings import Settings

JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets it for the command of a job, together with the address of the job's cluster."""


def cluster_address(settings: Settings, variables: Mapping[str, str] = os.environ) -> str | None:
    """`engine.ray_address`, or the cluster of the Ray job that this process belongs to.

    None: this machine alone, whatever `RAY_ADDRESS` says outside a job.
    """
    return settings.engine.ray_address or (variables.get("RAY_ADDRESS") if JOB in variables else None)
