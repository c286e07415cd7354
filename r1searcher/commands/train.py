"""Commands that train."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from r1searcher.commands.options import JsonObject, RLOptions, RunOptions, Set, command, overrides
from r1searcher.common.terminal import text_line

app = typer.Typer()
_command = command(app, "Train")

From = Annotated[Path | None, typer.Option("--from", help="Start from the model of this run.")]
Steps = Annotated[int | None, typer.Option(help="Number of training steps.")]


@_command
def init(file: Annotated[Path, typer.Argument(help="Settings file to create.")] = Path("settings.toml")) -> None:
    """Write a settings file to start from, with every setting explained."""
    from r1searcher.config.template import write_template

    write_template(file)
    text_line(f"{file}: set model.path, data.train and retrieval.url, then run `r1s stage1 {file}`")


@_command
def sft(options: RunOptions, steps: Steps = None) -> None:
    """Supervised fine-tuning on example trajectories, before reinforcement learning."""
    from r1searcher.stages.sft import run_sft

    run_sft(options.source({"sft.steps": steps}))


@_command
def stage1(options: RLOptions, from_: From = None, steps: Steps = None) -> None:
    """Stage 1: learn to search. Rewards searching and the right format."""
    from r1searcher.stages.stage import run_stage

    run_stage("stage1", options.source({"rl.steps": steps}), from_)


@_command
def stage2(options: RLOptions, from_: From = None, steps: Steps = None) -> None:
    """Stage 2: learn to use what was found. Rewards the answer's F1 and penalizes a wrong format."""
    from r1searcher.stages.stage import run_stage

    run_stage("stage2", options.source({"rl.steps": steps}), from_)


@_command
def train(options: RLOptions) -> None:
    """Run stage 1, then stage 2; run SFT first if the settings name traces."""
    from r1searcher.stages.chain import run_chain

    run_chain(options.source())


@_command
def check(
    options: RLOptions,
    stage: Annotated[Literal["sft", "stage1", "stage2"], typer.Option(help="sft, stage1 or stage2.")] = "stage1",
    queries: Annotated[int, typer.Option(min=2, help="Searches that the checks of the retriever may make.")] = 20,
    json_: JsonObject = False,
) -> None:
    """Check machine, data, tokenizer, retriever and reward of a stage, without training. A line per item."""
    from r1searcher.checks.command import run_check

    run_check(options.source(), stage, queries=queries, as_json=json_)


@_command
def plan(
    options: RunOptions,
    nodes: Annotated[int | None, typer.Option(min=1, help="Nodes with GPUs.")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="GPUs per node.")] = None,
    gpu_memory: Annotated[
        float | None, typer.Option(min=1, help="Memory per GPU, in GB; this machine's, or 80, if not given.")
    ] = None,
    json_: JsonObject = False,
) -> None:
    """What a stage needs: memory per GPU and host, disk, steps, time; or the smallest change that makes it fit."""
    from r1searcher.planning.command import run_plan

    own = {"engine.nodes": nodes, "engine.gpus": gpus, "engine.gpu_memory": gpu_memory}
    run_plan(options.source(own), as_json=json_)


@_command
def demo(
    output: Annotated[Path, typer.Option(help="Output folder.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the atlas, the traces and the training.")] = 7,
    contrast: Annotated[
        bool, typer.Option("--contrast", help="SFT, then only stage 2, for the steps of both stages.")
    ] = False,
    set_: Set = None,
) -> None:
    """Watch a 135M model learn to search an invented atlas, on a laptop's CPU."""
    from r1searcher.demo.run import DemoRequest, run_demo

    run_demo(DemoRequest(output=output, seed=seed, contrast=contrast, overrides=overrides(set_, {})))
