"""How many GPUs there are, and what is refused where there are too few. The driver's files are made for the test."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from r1searcher.checks import machine
from r1searcher.checks.base import Skip, StageInputs
from r1searcher.checks.runner import CHECKS
from r1searcher.config.settings import Settings, Stage, load
from r1searcher.engine import topology as topologies
from r1searcher.engine.topology import device_of, gpu_count, require_gpus, topology_of
from r1searcher.engine.vllm.inference import LocalModel
from r1searcher.errors import InputError

REPOSITORY = Path(__file__).parents[2]
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
    ahead = settings("stage1", {"gpus": 4, "vllm_engines": 4, "async_steps": 1})
    with pytest.raises(InputError, match=r"has 7; lower engine\.gpus or engine\.vllm_engines$"):
        require_gpus(topology_of(ahead, "gpu"), 7, "this machine")  # not by sharing them
    colocated = settings("stage1", {"gpus": 8, "colocate": True, "nodes": 2, "ray_address": "auto"})
    with pytest.raises(InputError, match=r"needs 16 GPUs \(engine\.nodes x engine\.gpus = 16, vLLM 16 of the same\)"):
        require_gpus(topology_of(colocated, "gpu"), 8, "the Ray cluster")


def test_gpus_of_the_sft_are_those_of_this_machine_or_of_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"engine\.gpus = 2: this machine has 1 GPUs; lower engine\.gpus in \[sft"):
        checked(monkeypatch, 1, "sft", settings("sft", {"gpus": 2}))
    checked(monkeypatch, 2, "sft", settings("sft", {"gpus": 2}))
    cluster: dict[str, Any] = {"gpus": 2, "ray_address": "auto"}
    checked(monkeypatch, 0, "sft", settings("sft", cluster))
    checked(monkeypatch, 0, "stage1", settings("stage1", cluster, **{"data.held_out": "held.jsonl"}))


@pytest.mark.parametrize("stage", ["sft", "stage1", "stage2"])
def test_the_demo_trains_on_the_cpu_of_a_machine_with_gpus_too(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topologies, "gpu_count", lambda: 1)
    assert device_of(load(stage, preset="demo")) == "cpu"


@pytest.fixture
def no_flash_attention(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No flash-attn package can be found, and none that the test makes is left imported."""
    monkeypatch.setattr(sys, "path", [one for one in sys.path if not (Path(one) / "flash_attn").exists()])
    imported = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "flash_attn"}
    yield
    sys.modules.pop("flash_attn", None)
    sys.modules.update(imported)


def test_adam_in_host_memory_needs_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = StageInputs("stage1", settings("stage1", {"adam_offload": True}))
    inputs.topology = topology_of(inputs.settings, "gpu")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(InputError, match=r"no C\+\+ compiler c\+\+ .*set engine\.adam_offload = false"):
        machine.compiler.run(inputs)
    (tmp_path / "c++").write_text("#!/bin/sh\n")
    (tmp_path / "c++").chmod(0o755)
    machine.compiler.run(inputs)


@pytest.mark.usefixtures("no_flash_attention")
@pytest.mark.parametrize(("name", "module"), [("flash_attention_2", "bert_padding"), ("flash_attention_4", "cute")])
def test_an_attention_whose_package_is_missing_is_a_problem(
    name: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = StageInputs("stage1", settings("stage1", {"attention": name}))
    inputs.topology = topology_of(inputs.settings, "gpu")
    with pytest.raises(InputError, match=rf'"{name}": the package flash-attn.* is not installed; use "sdpa"'):
        machine.attention.run(inputs)
    (tmp_path / "flash_attn").mkdir()
    (tmp_path / "flash_attn" / f"{module}.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    machine.attention.run(inputs)


def test_kernels_are_compiled_with_the_toolkit_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the packages nvidia-cuda-nvcc and nvidia-cuda-crt are laid out; a process of its own sees no other."""
    (tmp_path / "nvidia/cu13/bin").mkdir(parents=True)
    program = (
        "import os; from r1searcher.engine import cuda; cuda.use_packaged_toolkit(); print(os.environ.get('CUDA_HOME'))"
    )

    def toolkit(**more: str) -> str:
        variables = {"PYTHONPATH": f"{tmp_path}:{REPOSITORY}", **more}
        done = subprocess.run(
            [sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert toolkit() == "None"
    (tmp_path / "nvidia/cu13/bin/nvcc").touch()
    assert toolkit() == str(tmp_path / "nvidia/cu13")
    assert toolkit(CUDA_HOME="/opt/cuda") == "/opt/cuda"
    assert toolkit(CUDA_PATH="/opt/cuda") == "None"


def test_a_model_that_was_trained_over_several_gpus_is_evaluated_over_as_many() -> None:
    """The name is vLLM's own."""
    arguments = LocalModel(model="m", max_context=64, device="gpu", tensor_parallel=4)._arguments()
    assert arguments["tensor_parallel_size"] == 4
    fields = pytest.importorskip("vllm.engine.arg_utils").AsyncEngineArgs.__dataclass_fields__  # no patch changes it
    assert set(arguments) <= set(fields)
    assert "tensor_parallel_size" not in LocalModel(model="m", max_context=64, device="cpu")._arguments()


SHAPES = {"Qwen/Qwen2.5-7B": 7_615_616_512}
"""Parameters, as the hub's page of the model's weights says."""


def space(name: str, engine: dict[str, Any], output: Path, **overrides: Any) -> None:
    keys = {"model.path": "Qwen/Qwen2.5-7B", "output": str(output), **overrides}
    inputs = StageInputs("stage1", settings("stage1", engine, **keys))
    inputs.topology = topology_of(inputs.settings, "gpu")
    CHECKS[name].run(inputs)


def test_a_disk_without_space_for_two_checkpoints_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint takes 14 bytes per parameter (fp32 weights and two moments, bf16 weights), the model 2."""
    needed = (2 * 14 + 2) * SHAPES["Qwen/Qwen2.5-7B"]
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed))
    space("disk", {}, tmp_path / "runs")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed - 1))
    with pytest.raises(InputError, match=r"output: the checkpoints and the model take about 212\.8 GiB, and .* free"):
        space("disk", {}, tmp_path / "runs")
    written = tmp_path / "runs/stage1/checkpoints/_actor/global_step8"
    written.mkdir(parents=True)
    (written / "states").write_bytes(b"x")
    space("disk", {}, tmp_path / "runs")  # a run that resumes has some of it already
    space("disk", {}, tmp_path / "runs", **{"lora.rank": 8})


def test_states_that_do_not_fit_the_host_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Colocated: 16 bytes per parameter leave the GPUs, and each of 8 engines keeps its bf16 weights asleep."""
    needed = (16 + 8 * 2) * SHAPES["Qwen/Qwen2.5-7B"]
    pages = {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": needed}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    colocated = {"gpus": 8, "colocate": True}
    space("host-memory", colocated, tmp_path)
    pages["SC_PHYS_PAGES"] -= 1
    with pytest.raises(InputError, match=r"engine\.colocate: states outside the GPUs take about 227 GiB"):
        space("host-memory", colocated, tmp_path)
    with pytest.raises(Skip):
        space("host-memory", {**colocated, "ray_address": "auto"}, tmp_path)


@pytest.mark.training
def test_an_environment_whose_torch_is_built_for_cpus_is_refused() -> None:
    """pip takes a CPU build where an index offers one, and vLLM's pin accepts it."""
    torch = pytest.importorskip("torch")
    if torch.version.cuda is not None:
        pytest.skip("torch is a CUDA build here")
    command = [sys.executable, "-m", "r1searcher.engine.import_check", "gpu"]
    environment = {**os.environ, "R1S_ALLOW_UNTESTED_VERSIONS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert "is built for CPUs: remove this environment, then run `scripts/install-training gpu`" in done.stderr
    assert "Traceback" not in done.stderr
