"""`r1s demo`: a real 135M model learns to search, from SFT to held-out evaluation, on a laptop's CPU.

    OUTPUT/world/      the invented atlas: passages, index, questions, SFT traces
    OUTPUT/sft/     OUTPUT/stage1/     OUTPUT/stage2/     a run folder each
    OUTPUT/summary.json, curve.png

Every part that is finished is left as it is: the same command goes on after an interruption.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.panel import Panel
from rich.table import Table

from r1searcher.common import terminal
from r1searcher.common.files import append_row, write_json, writing
from r1searcher.common.records import Record, read_record_if_there
from r1searcher.common.terminal import SafeConsole
from r1searcher.config.settings import Settings, Stage, load
from r1searcher.demo.atlas import Atlas, make_atlas
from r1searcher.demo.traces import Trace, make_traces, write_traces
from r1searcher.engine.openrlhf.versions import require_training_packages
from r1searcher.episodes.prompt import PromptMaker, prompt_text
from r1searcher.episodes.trajectory import Trajectory
from r1searcher.models.demo import demo_model
from r1searcher.report.live import trajectory_text
from r1searcher.report.plots import save_curves, terminal_curves
from r1searcher.retrieval.engines.bm25 import EmbeddedIndex
from r1searcher.retrieval.indexing.bm25 import build
from r1searcher.retrieval.indexing.manifest import is_index
from r1searcher.rewards.format import answer_of_trajectory
from r1searcher.rewards.measures import View, shown_in
from r1searcher.rewards.metrics import score
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import read_metrics, to_row
from r1searcher.runs.resolved import protocol_of
from r1searcher.stages.held_out import evaluate_held_out, read_trajectories
from r1searcher.stages.sft import train_sft
from r1searcher.stages.stage import TITLES, train_stage

TRACES = 720
"""SFT traces written; the preset's SFT takes as many as its steps need."""


class Laps(Record):
    """`seconds.json`: seconds of each part."""

    __pydantic_extra__: dict[str, float]


class World(Record):
    """`world.json`: which world a folder holds, written when it is whole."""

    seed: int


class Stopwatch:
    """Seconds of each part, kept in a file, so that an interrupted demo still says what the whole took."""

    def __init__(self, file: Path) -> None:
        self._file = file
        laps = read_record_if_there(file, Laps, "remove it: the times of an earlier start are lost, nothing else")
        self.parts: dict[str, float] = dict(laps.model_extra or {}) if laps else {}
        self._started = time.monotonic()

    def lap(self, part: str) -> None:
        now = time.monotonic()
        self.parts[part] = round(self.parts.get(part, 0.0) + now - self._started, 1)
        self._started = now
        write_json(self._file, self.parts)

    @property
    def total(self) -> float:
        return round(sum(self.parts.values()), 1)


def run_demo(output: Path, seed: int, contrast: bool, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The whole demo, or with `contrast` stage 2 alone from the demo's SFT; returns its summary.

    `overrides` are settings (`section.key` -> value) for all stages.
    """
    console = terminal.console(stderr=True)
    require_training_packages()
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
    watch = Stopwatch(output / ("seconds-contrast.json" if contrast else "seconds.json"))
    console.rule("an invented atlas, and a model that has never seen it")
    world = make_world(output / "world", seed, console)
    model = demo_model(lambda line: console.print(line))
    watch.lap("world and weights")

    def settings_of(stage: Stage, start: Path, name: str) -> Settings:
        own = {
            "output": str(output),
            "name": name,
            "model.path": str(start),
            "data.train": str(world / "train.jsonl"),
            "data.held_out": str(world / "held_out.jsonl"),
            "data.traces": str(world / "traces.jsonl"),
            "retrieval.url": str(world / "index"),
        }
        given = {"seed": seed, **own, **overrides}
        return load(stage, preset="demo", overrides=given)

    plan: Sequence[tuple[Stage, str, str]] = (
        (("stage2", "contrast", "sft"),) if contrast else (("stage1", "stage1", "sft"), ("stage2", "stage2", "stage1"))
    )
    results: dict[str, dict[str, Any]] = {}

    def one(stage: Stage, name: str, start: Path, key: str) -> None:
        settings, run = settings_of(stage, start, name), RunFolder(output / name)
        console.rule(TITLES[stage])
        if stage == "sft":
            train_sft(settings, run, console)
        else:
            train_stage(stage, settings, run, console)
        watch.lap(name)
        results[key] = evaluate_held_out(run, run.model, settings.evaluation.questions, console)
        watch.lap(f"{name} held out")
        console.print(_sentence(results[key]))

    one("sft", "sft", model, "sft")
    for stage, name, before in plan:
        one(stage, name, RunFolder(output / before).model, name)

    names = [name for _, name, _ in plan]
    summary = {**results, "seconds": watch.total, "parts": watch.parts, "seed": seed}
    write_json(output / ("summary-contrast.json" if contrast else "summary.json"), summary)
    curve = output / ("curve-contrast.png" if contrast else "curve.png")
    rows = {name: read_metrics(RunFolder(output / name)) for name in names}
    save_curves(rows, curve, "SmolLM2-135M learns to search")
    show_results(console, output, results, names, rows, curve, watch.total)
    return summary


def make_world(folder: Path, seed: int, console: SafeConsole) -> Path:
    """Write the atlas, its index and the SFT traces; a folder whose `world.json` is there is finished."""
    done = folder / "world.json"
    before = read_record_if_there(done, World, f"remove {folder}, and the same command makes it again")
    if before is not None and before.seed == seed:
        return folder
    for name in ("passages.jsonl", "train.jsonl", "held_out.jsonl", "traces.jsonl"):
        (folder / name).unlink(missing_ok=True)
    atlas = make_atlas(seed)
    for passage in atlas.passages:
        append_row(folder / "passages.jsonl", {"id": passage.id, "title": passage.title, "text": passage.text})
    for name, questions in (("train", atlas.train), ("held_out", atlas.held_out)):
        for q in questions:
            row = {"id": q.id, "question": q.question, "gold_answers": list(q.gold_answers), "hops": len(q.hops)}
            append_row(folder / f"{name}.jsonl", row)
    build(atlas.passages, folder / "index", overwrite=is_index(folder / "index"), restart=True)
    write_traces(_traces(atlas, folder / "index", seed), folder / "traces.jsonl")
    write_json(done, {"seed": seed, "passages": len(atlas.passages)})
    two = sum(len(q.hops) == 2 for q in atlas.train)
    console.print(
        f"{len(atlas.passages)} passages about films, people and towns that don't exist; {len(atlas.train)} questions "
        f"to learn from ({two} need two searches), {len(atlas.held_out)} about other films, people and towns to judge "
        f"by · {folder}",
        soft_wrap=True,
    )
    return folder


def _traces(atlas: Atlas, index: Path, seed: int) -> list[Trace]:
    """SFT traces with what the demo's own settings would show the model."""
    settings = load("sft", preset="demo")
    protocol = protocol_of(settings)
    prompt = PromptMaker(prompt_text(settings.model.prompt, protocol), protocol, chat_template=False, tokenizer=None)
    return asyncio.run(
        make_traces(
            atlas.train,
            EmbeddedIndex(index),
            prompt,
            TRACES,
            protocol=protocol,
            top_k=settings.episode.top_k,
            max_document_words=settings.episode.max_document_words,
            seed=seed,
        )
    )


def _sentence(figures: Mapping[str, Any]) -> str:
    return "held out, sampled: " + " · ".join(
        f"{m.heading} {figures[m.name]:.2f}" for m in shown_in(View.DEMO) if m.name in figures
    )


def show_results(
    console: SafeConsole,
    output: Path,
    results: Mapping[str, Mapping[str, Any]],
    names: Sequence[str],
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    curve: Path,
    seconds: float,
) -> None:
    """The end of the demo: figures, curve, one question before and after, and where everything lies."""
    console.rule("what it learned")
    table = Table(title="held-out questions: sampled at temperature 1 (greedy)")
    table.add_column("")
    for key in results:
        table.add_column(key.replace("_", " "), justify="right")
    for m in shown_in(View.DEMO):
        table.add_row(m.heading, *(f"{r[m.name]:.2f} ({r['greedy'][m.name]:.2f})" for r in results.values()))
    console.print(table)
    console.print(terminal_curves([row for name in names for row in rows[name]]))
    before, after = before_and_after(RunFolder(output / "sft"), RunFolder(output / names[-1]))
    console.print(Panel(trajectory_text(to_row(before)), title="before", title_align="left"))
    console.print(Panel(trajectory_text(to_row(after)), title="after", title_align="left"))
    console.print(
        f"{seconds / 60:.1f} minutes · figures {output}/summary.json · curve {curve}\n"
        f"the model: {RunFolder(output / names[-1]).model} · every episode of training: "
        f"{output}/*/trajectories",
        soft_wrap=True,
    )


def before_and_after(first: RunFolder, last: RunFolder) -> tuple[Trajectory, Trajectory]:
    """One held-out question answered greedily by both: one that took several searches to get right, if there is any."""
    pairs = list(zip(read_trajectories(first, 0.0), read_trajectories(last, 0.0), strict=True))

    def learned(pair: tuple[Trajectory, Trajectory]) -> tuple[float, int]:
        before, after = (score(answer_of_trajectory(t) or "", t.gold_answers).f1 for t in pair)
        return after - before, len(pair[1].searches)

    return max(pairs, key=learned)
