"""Training on one GPU: whether it learns, how far vLLM and trainer are apart, and memory as planned.

    python benchmarks/gpu.py [--runs weights lora large] [--folder FOLDER]

Needs a CUDA environment (`scripts/install-training gpu`). Trains the toy world of the tests (0.4 M parameters), all on
one card, colocated: SFT, then stage 1 with all weights and with LoRA. `large` trains two steps
of Qwen2.5-3B's shape with random weights and 128 episodes of 1,024 tokens per step, and compares the memory of each
process with `r1s plan`; it needs a card of 80 GB and 110 GB of disk for its folder, most of it for checkpoints that the
checks ask for and that the run does not write. Downloads nothing.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

import tomli_w
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from r1searcher.common.files import read_rows
from r1searcher.engine.environment import RUN
from tests.engine.toy import World, make_model, make_world

RUNS = ("weights", "lora", "large")
GIB = 2**30
ONE_CARD = {"device": "gpu", "gpus": 1, "colocate": True, "zero_stage": 2}
VOCABULARY = 151936
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
"""Of Qwen2.5-3B."""


class CardMemory(threading.Thread):
    """Samples the memory of each process on the first card, per run and role, five times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        import pynvml  # type: ignore[import-not-found]

        pynvml.nvmlInit()
        self.nvml, self.card = pynvml, pynvml.nvmlDeviceGetHandleByIndex(0)
        self.peaks: dict[str, dict[str, float]] = defaultdict(dict)
        """Run -> role ("vLLM", "trainer") -> GiB; "both" is the largest sum."""

    def run(self) -> None:
        while True:
            now: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
            for process in self.nvml.nvmlDeviceGetComputeRunningProcesses(self.card):
                run, role = _owner(process.pid)
                now[run][role] += (process.usedGpuMemory or 0) / GIB
                now[run]["both"] += (process.usedGpuMemory or 0) / GIB
            for run, roles in now.items():
                for role, gib in roles.items():
                    self.peaks[run][role] = max(gib, self.peaks[run].get(role, 0))
            time.sleep(0.2)


def _owner(pid: int) -> tuple[str, str]:
    """The run of a process, by its environment, and its role."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        role = "vLLM" if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"VLLM") else "trainer"
    except OSError:  # it has ended
        return "", ""
    runs = [value for key, _, value in (variable.partition(b"=") for variable in variables) if key == RUN.encode()]
    return (Path(runs[0].decode()).name if runs else "", role)


def toy(folder: Path) -> World:
    """The toy world with one card, and the model of its SFT."""
    world = make_world(folder)
    settings = tomllib.loads(world.settings.read_text())
    settings["engine"] = {**ONE_CARD, "gpu_memory_utilization": 0.2, "gradient_checkpointing": False}
    world.settings.write_text(tomli_w.dumps(settings))
    world.run("sft", str(world.settings), "--name", "sft")
    return world


def large_model(folder: Path) -> Path:
    """Random weights, which sample the whole vocabulary: the toy world's tokenizer gets names for all of it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    make_model(folder)
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    names = tokenizer["model"]["vocab"]
    first = 1 + max(*names.values(), *(token["id"] for token in tokenizer["added_tokens"]))
    names.update({f"~{number}": number for number in range(first, VOCABULARY)})
    file.write_text(json.dumps(tokenizer))
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen2", **SHAPE), dtype=torch.bfloat16)
    model.cpu().save_pretrained(folder)
    del model
    torch.cuda.empty_cache()
    return folder


def settings_of(world: World, model: Path) -> Path:
    """A file with the settings of the run "large"."""
    settings = tomllib.loads(world.settings.read_text())
    settings["model"]["path"] = str(model)
    settings["episode"] = {"max_searches": 1, "max_new_tokens": 512, "max_context": 1024, "top_k": 1}
    settings["rl"] = {"questions_per_step": 16, "samples_per_question": 8, "batch_size": 128, "steps": 2}
    settings["engine"] = {**ONE_CARD, "gradient_checkpointing": True, "gpu_memory_utilization": 0.5}
    settings["checkpoint"] = {"every": 100}
    file = world.folder / "large.toml"
    file.write_text(tomli_w.dumps(settings))
    return file


def measure(folder: Path, runs: Collection[str]) -> None:
    memory = CardMemory()
    memory.start()
    world, out = toy(folder), Console()
    table = Table(
        "run", "s to the end", "s per step", "of it rollouts", "retrieval", "|vllm_kl| at most", "GiB: vLLM", "trainer"
    )
    for name in runs:
        began = time.monotonic()
        if name == "large":
            file = settings_of(world, large_model(folder / "random"))
            world.run("stage1", str(file), "--name", name)
            planned = subprocess.run(
                world.command("plan", str(file), "--json"), capture_output=True, text=True, check=True
            )
        else:
            world.stage1(name, *(("--set", "lora.rank=8") if name == "lora" else ()))
        rows, peak = list(read_rows(world.folder_of(name).metrics)), memory.peaks[name]
        table.add_row(
            name,
            f"{time.monotonic() - began:.0f}",
            *(
                f"{statistics.median(row[key] for row in rows):.1f}"
                for key in ("timing/step_total", "timing/generation")
            ),
            f"{rows[0]['retrieval']:.2f} to {rows[-1]['retrieval']:.2f}",
            f"{max(abs(row['vllm_kl']) for row in rows):.1e}",
            *(f"{peak.get(role, 0):.1f}" for role in ("vLLM", "trainer")),
        )
    out.print(table)
    if "large" in runs:
        plan = json.loads(planned.stdout)
        out.print(f"large, GiB: planned {plan['peak']}, measured {memory.peaks['large']['both']:.1f}; {plan}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--runs", nargs="+", choices=RUNS, default=RUNS)
    arguments.add_argument("--folder", type=Path, help="a new folder; a temporary one if not given")
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        measure(asked.folder or Path(temporary), asked.runs)


if __name__ == "__main__":
    main()
