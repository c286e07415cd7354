"""How well a plan predicts the memory of a model that was not measured, from two that were.

Models with random weights are trained by the real engine on this machine's CPU in fp32 (an SFT of the toy world, two
updates), each in its own process. What is compared is growth: the peak of the process's resident memory, less that of
the same engine with a tiny model. The plan's items are weights, gradients and optimizer (`states`), and activations
and logits, by the formulas for GPUs with 4 bytes per value. Two factors, of the states and of the rest, follow
from the growth of the first two models; the third is predicted with them.
"""

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from r1searcher.planning.memory import LOGITS_FACTOR, activations, states
from r1searcher.planning.shapes import shape_of
from r1searcher.runs.folder import RunFolder
from tests.engine.toy import World, make_world, one_thread, write_rows


@dataclass(frozen=True, slots=True)
class Size:
    hidden: int
    layers: int
    vocabulary: int = 8192


EMPTY = Size(64, 1, 512)
CALIBRATION, PREDICTED = (Size(256, 4), Size(512, 6)), Size(768, 8)
ROWS = 4
"""Rows per forward and backward pass, all of the same length."""

TRACE = (
    ("prompt", "Where is barado?\n<think>"),
    ("model", "</think><answer>" + " cordell" * 200 + "</answer>"),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """Bytes: the peak of the trainer's process, and the plan's items without factors."""

    size: Size
    parameters: int
    peak: int
    states: int
    rest: int


def make_model(size: Size, world: World, folder: Path) -> Path:
    """A Qwen2 of that size with random weights and the toy world's tokenizer."""
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    AutoTokenizer.from_pretrained(world.folder / "model").save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=4 * size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.hidden // 64,
        num_key_value_heads=max(1, size.hidden // 128),
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        eos_token_id=0,
        pad_token_id=0,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


def measure(size: Size, world: World) -> Measured:
    """Train a model of that size; all rows have the same length."""
    name = f"{size.hidden}x{size.layers}"
    model, run = make_model(size, world, world.folder / name), world.folder_of(name)
    write_rows(world.folder / "long.jsonl", [{"segments": [*TRACE]}] * (4 * ROWS))
    settings = {
        "model.path": model,
        "data.traces": world.folder / "long.jsonl",
        "episode.max_context": 2048,
        "sft.micro_batch_size": ROWS,
        "sft.batch_size": 2 * ROWS,
        "sft.steps": 2,
    }
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    peak = _peak(world.command("sft", str(world.settings), "--name", name, *words), run)
    shape, tokens = shape_of(str(model)), ROWS * _tokens(model)
    return Measured(
        size=size,
        parameters=shape.parameters,
        peak=peak,
        states=sum(states(shape, 2, 1, value_bytes=4).values()),
        rest=activations(shape, tokens, checkpointing=False, value_bytes=4)
        + int(LOGITS_FACTOR * 4 * tokens * shape.vocabulary),
    )


def _tokens(model: Path) -> int:
    """Tokens of `TRACE`."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    return sum(len(tokenizer(text)["input_ids"]) for _, text in TRACE)


def _peak(command: Sequence[str], run: RunFolder) -> int:
    """The highest resident memory of a process of the run, in bytes, as the kernel keeps it (VmHWM)."""
    child = subprocess.Popen(command, env=one_thread(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0
    while child.poll() is None:
        peak = max(peak, _resident(f"R1S_RUN={run.path.resolve()}\0".encode()))
        time.sleep(0.05)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {run.log}")
    return peak


def _resident(variable: bytes) -> int:
    """The highest VmHWM of the processes that have the environment variable now."""
    found = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if variable in (process / "environ").read_bytes():
                fields = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
                found = max(found, int(fields.get("VmHWM", "0 kB").split()[0]) * 1024)
        except OSError:  # it has ended
            continue
    return found


def factors(two: Sequence[Measured], empty: Measured) -> tuple[float, float]:
    """The factors of states and of the rest with which both grow as measured."""
    (a, b), (grown_a, grown_b) = two, [one.peak - empty.peak for one in two]
    determinant = a.states * b.rest - b.states * a.rest
    of_states = (grown_a * b.rest - grown_b * a.rest) / determinant
    return of_states, (grown_b * a.states - grown_a * b.states) / determinant


def predicted(one: Measured, of_states: float, of_rest: float) -> float:
    """Bytes of growth."""
    return of_states * one.states + of_rest * one.rest


def calibrate(folder: Path) -> tuple[Measured, list[Measured], tuple[float, float]]:
    """Measure the empty engine and all models, the predicted one last; returns the factors with them."""
    world = make_world(folder)
    empty = measure(EMPTY, world)
    models = [measure(size, world) for size in (*CALIBRATION, PREDICTED)]
    return empty, models, factors(models[:2], empty)
