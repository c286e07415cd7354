"""What is watched inside the trainer's process, step by step: metrics, guard, early end.

OpenRLHF builds its `TensorboardLogger` in the process that holds the training loop and calls it once a step, before it
saves a checkpoint. The one here does the same and then, with the same figures:

- appends a row to `metrics.jsonl`: every key that OpenRLHF and the executor report, and `step` and `time`;
- stops the run by `RunStopped` when the guard objects, before that step's checkpoint is written;
- ends the stage when its rates were passed, or when a stop was asked for: it has OpenRLHF save this step's checkpoint
  and takes the prompts for used up, so that the loop ends in its own way and OpenRLHF saves the model.
"""

import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from r1searcher.common.files import append_row, write_json, write_text
from r1searcher.common.records import read_record_if_there
from r1searcher.config.settings import Settings
from r1searcher.engine import guard, import_patches
from r1searcher.engine.import_patches import Patch
from r1searcher.errors import R1Error, RunStopped
from r1searcher.rewards.measures import View, shown_in
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import StopRow, read_metrics
from r1searcher.runs.resolved import read_run

RUN_VARIABLE = "R1S_RUN"
"""Environment variable with the run folder, which holds the settings of the run."""

Reason = Literal["finished", "rates passed", "asked"]


@dataclass(frozen=True)
class StopDecision:
    """Why a stage's loop ended in its own way. `step` is the last one that was trained."""

    reason: Reason
    step: int
    detail: str = ""


class StepMonitor:
    """What is watched of the run whose folder is `run`."""

    def __init__(self, run: RunFolder, settings: Settings) -> None:
        self.run, self.settings = run, settings
        limit = settings.engine.vllm_kl_limit
        self.vllm_kl_limit = guard.limit_for(settings.engine.precision) if limit is None else limit
        stop = settings.stop
        wanted = {measure.name: getattr(stop, f"{measure.name}_rate", None) for measure in shown_in(View.STOP)}
        self.rates = {name: rate for name, rate in wanted.items() if rate is not None}

    @classmethod
    def of_this_process(cls) -> "StepMonitor":
        run = RunFolder(Path(os.environ[RUN_VARIABLE]))
        return cls(run, read_run(run)[1])

    def step(self, step: int, metrics: Mapping[str, Any]) -> StopDecision | None:
        """Record one step; a `StopDecision` when the stage is to end with it. Raises `RunStopped` for rollout drift."""
        row = record(self.run, step, metrics)
        drift = guard.rollout_drift(row, self.vllm_kl_limit)
        if drift is not None:
            sentence = f"step {step}: {drift}"
            write_text(self.run.stop_note, sentence + "\n")
            raise RunStopped(sentence)
        ending = StopDecision("asked", step) if stop_request(self.run).exists() else self._passed(step)
        if ending is not None:
            write_json(ending_file(self.run), asdict(ending))
        return ending

    def _passed(self, step: int) -> StopDecision | None:
        patience = self.settings.stop.patience
        recent = read_metrics(self.run)[-patience:]
        if not self.rates or len(recent) < patience:
            return None
        for row in recent:
            for name, rate in self.rates.items():
                if name not in row:
                    raise R1Error(f"the stage is to end by {name!r}, and no metric is called so: {', '.join(row)}")
                if row[name] is None or row[name] < rate:
                    return None
        return StopDecision("rates passed", step, ", ".join(f"{name} {recent[-1][name]:.2f}" for name in self.rates))


def record(run: RunFolder, step: int, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Append a step to `metrics.jsonl`: all numbers of it; one that is not finite becomes null there."""
    row = {key: float(value) for key, value in metrics.items() if isinstance(value, (int, float))}
    written = {key: value if math.isfinite(value) else None for key, value in row.items()}
    append_row(run.metrics, {"step": step, "time": time.time(), **written})
    return row


def stop_request(run: RunFolder) -> Path:
    """A file that asks the run to end behind the step under way, with everything saved."""
    return run.path / "stop"


def ending_file(run: RunFolder) -> Path:
    """Where the training loop says why it ended before its last step."""
    return run.path / "ending.json"


def read_ending(run: RunFolder) -> StopDecision | None:
    """The note in `ending_file`; None where there is none. Raises `InputError` where it is damaged."""
    row = read_record_if_there(ending_file(run), StopRow, "remove it")
    return StopDecision(row.reason, row.step, row.detail) if row else None


def install_if_enabled() -> None:
    if os.environ.get(RUN_VARIABLE):
        import_patches.install(PATCHES)


class _Loop:
    """The training loop of this process: whether it is to end."""

    over = False


def _record_steps(module: ModuleType) -> None:
    """OpenRLHF's figures of a step leave its process through TensorBoard or wandb only, and neither can stop a run."""
    stock = module.TensorboardLogger

    class Recorder(stock):  # type: ignore[misc,valid-type]
        def __init__(self, args: Any) -> None:
            super().__init__(args)
            self.args, self.watch = args, StepMonitor.of_this_process()

        def log_train(self, global_step: int, logs_dict: dict[str, Any]) -> None:
            super().log_train(global_step, logs_dict)
            self.writer.flush()
            if self.watch.step(global_step, logs_dict) is not None:
                _Loop.over = True
                self.args.ckpt.save_steps = 1  # OpenRLHF looks at it next: this step's checkpoint is saved

    module.TensorboardLogger = Recorder  # type: ignore[attr-defined]


def _end_the_loop(module: ModuleType) -> None:
    """OpenRLHF's loop ends where no prompts are left, and nowhere else."""
    stock = module.SamplesGenerator.generate_samples

    def generate_samples(self: Any, **options: Any) -> tuple[list[Any], float | None, int, bool]:
        return ([], None, 0, True) if _Loop.over else stock(self, **options)

    module.SamplesGenerator.generate_samples = generate_samples


def _record_sft_steps(module: ModuleType) -> None:
    """The SFT trainer writes TensorBoard events in blocks of two minutes; a progress view needs each step."""
    stock = module.SFTTrainer.save_logs_and_checkpoints
    run = RunFolder(Path(os.environ[RUN_VARIABLE]))

    def save_logs_and_checkpoints(self: Any, args: Any, global_step: int, *rest: Any, **options: Any) -> None:
        if self.strategy.is_rank_0():
            record(run, global_step, rest[1] if len(rest) > 1 else options["logs_dict"])
        stock(self, args, global_step, *rest, **options)

    module.SFTTrainer.save_logs_and_checkpoints = save_logs_and_checkpoints


PATCHES = [
    Patch("openrlhf.trainer.ppo_trainer", ("TensorboardLogger",), apply=_record_steps),
    Patch("openrlhf.trainer.ppo_utils.samples_generator", ("SamplesGenerator.generate_samples",), apply=_end_the_loop),
    Patch("openrlhf.trainer.sft_trainer", ("SFTTrainer.save_logs_and_checkpoints",), apply=_record_sft_steps),
]
