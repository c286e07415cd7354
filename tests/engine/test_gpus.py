"""How many GPUs there are, and what is refused where there are too few. The driver's files are made for the test."""

from pathlib import Path
from typing import Any

import pytest

from r1searcher.checks import machine
from r1searcher.checks.base import StageInputs
from r1searcher.config.settings import Settings, Stage, load
from r1searcher.engine import topology as topologies
from r1searcher.engine.topology import device_of, gpu_count, require_gpus, topology_of
from r1searcher.errors import InputError

DRIVER = "proc/driver/nvidia/gpus"
WSL = ("dev/dxg", "usr/lib/wsl/lib/libcuda.so.1")


@pytest.mark.parametrize(
    ("files", "visible", "count"),
    [
        ((), None, 0),
        ((), "0", 0),
        ((f"{DRIVER}/0000:01:00.0", f"{DRIVER}/0000:02:00.0"), None, 2),
        (("dev/nvidia0", "dev/nvidia1", "dev/nvidiactl", "dev/nvidia-uvm"), None, 2),
        (("dev/nvidiactl", "dev/nvidia-uvm"), None, 0),
        (("dev/nvidia0", f"{DRIVER}/0000:01:00.0", f"{DRIVER}/0000:02:00.0"), None, 1),  # a container with one of two
        (("dev/nvidia0", "dev/nvidia1"), "", 0),
        (("dev/nvidia0", "dev/nvidia1"), "-1", 0),
        (("dev/nvidia0", "dev/nvidia1"), "1", 1),
        (("dev/nvidia0", "dev/nvidia1"), "0,-1,1", 1),
        (("dev/nvidia0",), "0,1,2", 1),
        (("dev/nvidia0",), "MIG-a,MIG-b", 2),
        (WSL, None, None),
        (WSL, "0,1", 2),
        (WSL, "-1", 0),
        (WSL[:1], None, 0),  # WSL2 with another vendor's GPU
    ],
)
def test_gpus_are_counted_from_the_drivers_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: tuple[str, ...], visible: str | None, count: int | None
) -> None:
    """As CUDA's documentation says of CUDA_VISIBLE_DEVICES: an invalid index ends the list."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert gpu_count(tmp_path) == count


def settings(stage: Stage, engine: dict[str, Any], **overrides: Any) -> Settings:
    keys = {"engine.device": "gpu", **{f"engine.{key}": value for key, value in engine.items()}, **overrides}
    return load(stage, overrides=keys)


def checked(monkeypatch: pytest.MonkeyPatch, present: int | None, stage: Stage, chosen: Settings) -> None:
    """The check of the device on a machine with that many GPUs; none of the test machines has any."""
    monkeypatch.setattr(topologies, "gpu_count", lambda: present)
    monkeypatch.setattr(machine, "gpu_count", lambda: present)
    machine.device.run(StageInputs(stage, chosen))


def test_too_few_gpus_are_refused_before_anything_waits_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = settings("stage1", {"gpus": 4, "vllm_engines": 2}, **{"rl.kl_coef": 0.1})
    checked(monkeypatch, 10, "stage1", chosen)
    checked(monkeypatch, None, "stage1", chosen)
    with pytest.raises(InputError) as error:
        checked(monkeypatch, 9, "stage1", chosen)
    assert str(error.value) == (
        "engine.gpus: the run needs 10 GPUs (engine.gpus = 4, as many for the reference model, vLLM 2) and this "
        "machine has 9; lower engine.gpus or engine.vllm_engines, or set engine.colocate = true"
    )
    colocated = settings("stage1", {"gpus": 8, "colocate": True, "nodes": 2, "ray_address": "auto"})
    with pytest.raises(InputError, match=r"needs 16 GPUs \(engine\.nodes x engine\.gpus = 16, vLLM 16 of the same\)"):
        require_gpus(topology_of(colocated, "gpu"), 8, "the Ray cluster")


def test_sft_and_evaluation_are_refused_where_only_the_cluster_has_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster: dict[str, Any] = {"gpus": 2, "ray_address": "auto"}
    with pytest.raises(InputError, match="SFT runs on this machine, which has 0 GPUs"):
        checked(monkeypatch, 0, "sft", settings("sft", cluster))
    held_out = settings("stage1", cluster, **{"data.held_out": "held.jsonl"})
    with pytest.raises(InputError, match=r"evaluated on this machine, which has 0 GPUs.*evaluation\.questions = 0"):
        checked(monkeypatch, 0, "stage1", held_out)
    checked(monkeypatch, 2, "sft", settings("sft", cluster))
    checked(monkeypatch, 1, "stage1", held_out)
    checked(monkeypatch, 0, "stage1", settings("stage1", cluster))


@pytest.mark.parametrize("stage", ["sft", "stage1", "stage2"])
def test_the_demo_trains_on_the_cpu_of_a_machine_with_gpus_too(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topologies, "gpu_count", lambda: 1)
    assert device_of(load(stage, preset="demo")) == "cpu"
