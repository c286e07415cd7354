"""An SFT with a row for each turn against one with whole traces: tokens, and CPU seconds of an update.

    python benchmarks/sft_rows.py RUN --updates 3

RUN is the folder of an SFT of the demo (`runs/demo/sft`); its settings name the traces. Updates alternate in one
process: forward and backward pass on the CPU with the engine's loss, bf16 arithmetic on fp32 weights, the demo's frozen
layers. CPU seconds are those of all threads, so that other work on the machine matters little.
"""

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1searcher.common.terminal import text_line
from r1searcher.engine import cpu, environment
from r1searcher.episodes.trajectory import Author
from r1searcher.questions.traces import Trace, read_traces
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.resolved import read_run


@dataclass(frozen=True)
class Variant:
    name: str
    rows: Sequence[Trace]
    batch: int
    micro: int

    @property
    def title(self) -> str:
        return f"{self.batch} {self.name}, micro-batches of {self.micro}"

    def update(self, number: int) -> list[Trace]:
        """The rows of an update, counted from 0; after the last row the first one follows."""
        return [self.rows[place % len(self.rows)] for place in range(number * self.batch, (number + 1) * self.batch)]


def turns_of(trace: Trace) -> Iterator[Trace]:
    """A row for each turn of the model, as OpenRLHF's own dataset has them: what is before it is not trained."""
    for place, (author, _) in enumerate(trace):
        if author is Author.MODEL:
            yield (*((Author.ENVIRONMENT, text) for _, text in trace[:place]), trace[place])


class Trainer:
    """The demo's model, and the engine's dataset and loss."""

    def __init__(self, run: RunFolder, frozen: int) -> None:
        os.environ.update(cpu.ENVIRONMENT)
        os.environ[cpu.CPU_ENV] = cpu.CpuSettings(precision="mixed", freeze_lower_layers=frozen).to_env()
        os.environ[environment.RUN] = str(run.path)
        from r1searcher.engine.openrlhf import workers

        workers.setup()
        import torch
        from openrlhf.models.actor import Actor
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from r1searcher.engine.openrlhf.patches.cpu import freeze_lower_layers

        start = run.path / "start"
        self.tokenizer = AutoTokenizer.from_pretrained(start)
        self.network = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
        freeze_lower_layers(self.network, frozen)
        self.actor = Actor(self.network)
        self.actor.packing_samples = False

    def batches(self, rows: Sequence[Trace], micro: int) -> list[Any]:
        """The micro-batches of an update, shortest rows first: ids, attention mask and loss mask each."""
        from openrlhf.datasets import SFTDataset

        dataset = SFTDataset([{"segments": row} for row in rows], self.tokenizer)
        items = sorted((dataset[place] for place in range(len(rows))), key=lambda item: int(item[0].numel()))
        collated = (dataset.collate_fn(items[place : place + micro]) for place in range(0, len(items), micro))
        return [[part.squeeze(1) for part in batch] for batch in collated]

    def seconds(self, batches: Sequence[Any]) -> float:
        """CPU seconds of an update."""
        from openrlhf.models import SFTLoss

        from r1searcher.engine.openrlhf.patches import logits

        tokens = sum(int(mask.sum()) for *_, mask in batches)
        self.network.zero_grad(set_to_none=True)
        started = time.process_time()
        for ids, attention, mask in batches:
            logits._Trained.loss_mask = mask[:, :-1]  # as the engine's loop sets it
            log_probs, _ = self.actor(ids, attention_mask=attention, return_output=True, return_logprobs=True)
            SFTLoss()(log_probs, mask[:, :-1], batch_num_tokens=tokens, dp_size=1).backward()
        return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("run", type=Path)
    parser.add_argument("--updates", type=int, default=3)
    asked = parser.parse_args()
    run = RunFolder(asked.run)
    _, settings = read_run(run)
    traces = list(read_traces(Path(settings.data.traces)))
    turns = [row for trace in traces for row in turns_of(trace)]
    variants = [
        Variant("turns", turns, 32, 16),
        Variant("traces", traces, 18, 9),
        Variant("traces", traces, 18, 6),
    ]
    trainer = Trainer(run, settings.engine.freeze_lower_layers)
    for one in variants:
        batches = [batch for number in range(40) for batch in trainer.batches(one.update(number), one.micro)]
        tokens, padded, trained = map(sum, zip(*map(_counts, batches), strict=True))
        text_line(f"{one.title}, 40 updates: {tokens} tokens, {padded} with padding, {trained} trained")
    for number in range(asked.updates):
        for one in variants:
            seconds = trainer.seconds(trainer.batches(one.update(number), one.micro))
            text_line(f"{one.title}, update {number + 1}: {seconds:.1f} CPU s")


def _counts(batch: Any) -> tuple[int, int, int]:
    ids, attention, mask = batch
    return int(attention.sum()), int(ids.numel()), int(mask.sum())


if __name__ == "__main__":
    main()
