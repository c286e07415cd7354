"""Which Ray the engine's process starts or joins, and what it says if that has too few GPUs.

Real ones, on this machine.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1searcher.config.settings import load
from r1searcher.engine.environment import RAY_ADDRESS, RUN
from r1searcher.runs.folder import RunFolder
from r1searcher.stages.prepare import manifest_of, write_run_metadata

pytestmark = pytest.mark.training
ray = pytest.importorskip("ray")
pytest.importorskip("openrlhf")

JOIN = """
import ray
from r1searcher.engine.openrlhf.main import ray_of_the_run
with ray_of_the_run():
    print("joined", ray.get_runtime_context().gcs_address, int(ray.cluster_resources()["GPU"]))
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster with two logical GPUs."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 2, "object_store_memory": 10**8})
    yield made.address
    made.shutdown()


def started(folder: Path, gpus: int, **variables: str) -> "subprocess.CompletedProcess[str]":
    """`ray_of_the_run` in a process of its own, for a run on that many GPUs."""
    keys = {"engine.gpus": gpus, "engine.colocate": True, "engine.device": "cpu", "retrieval.url": "index"}
    settings, run = load("stage1", overrides=keys), RunFolder(folder)
    write_run_metadata(run, settings, manifest_of("stage1", settings))
    here = {**os.environ, "R1S_CPU": "{}", RUN: str(folder), **variables}
    return subprocess.run([sys.executable, "-c", JOIN], env=here, capture_output=True, text=True, check=False)


def test_a_cluster_with_too_few_gpus_is_one_sentence(cluster: str, tmp_path: Path) -> None:
    assert f"joined {cluster} 2" in started(tmp_path, 2, **{RAY_ADDRESS: cluster}).stdout
    refused = started(tmp_path, 3, **{RAY_ADDRESS: cluster})
    assert refused.returncode != 0
    assert "the run needs 3 GPUs (engine.gpus = 3, vLLM 3 of the same) and the Ray cluster has 2" in refused.stderr


def test_a_local_run_does_not_join_the_cluster_of_the_environment(cluster: str, tmp_path: Path) -> None:
    """Ray's own variable names one, and there is one on this machine."""
    done = started(tmp_path, 3, RAY_ADDRESS=cluster)
    assert done.stdout.rstrip().endswith(" 16"), done.stderr[-2000:]
    assert cluster not in done.stdout
