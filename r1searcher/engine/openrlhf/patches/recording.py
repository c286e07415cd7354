"""After each step, in the trainer's process: records metrics, evaluates rules, ends the loop.

OpenRLHF creates its `TensorboardLogger` in the process with the training loop and calls it once per step, before it
saves a checkpoint. The one here does the same and then passes the metrics to a `StepMonitor`. If that decides to end
the stage, OpenRLHF saves this step's checkpoint and finds no prompts left, so that the loop ends normally and OpenRLHF
saves the model. The decision is in the run folder (`ending.json`), where the process that generates samples reads it:
in asynchronous training that is another process.
"""

from types import ModuleType
from typing import TYPE_CHECKING, Any

from r1searcher.engine import cpu
from r1searcher.engine.environment import run_of_this_process
from r1searcher.engine.import_patches import Patch
from r1searcher.runs.resolved import read_run
from r1searcher.watch.monitor import StepMonitor, record

if TYPE_CHECKING:
    from torch import Tensor


def _record_steps(module: ModuleType) -> None:
    """OpenRLHF exports a step's metrics only through TensorBoard or wandb, and neither can stop a run."""
    stock = module.TensorboardLogger

    class Recorder(stock):  # type: ignore[misc,valid-type]
        def __init__(self, args: Any) -> None:
            super().__init__(args)
            run = run_of_this_process()
            settings = read_run(run)[1]
            here = settings.engine.model_copy(update={"device": "cpu" if cpu.is_enabled() else "gpu"})
            self.args, self.monitor = args, StepMonitor(run, settings.model_copy(update={"engine": here}))

        def log_train(self, global_step: int, logs_dict: dict[str, Any]) -> None:
            super().log_train(global_step, logs_dict)
            self.writer.flush()
            if self.monitor.step(global_step, logs_dict) is not None:
                self.args.ckpt.save_steps = 1  # read next by OpenRLHF: this step's checkpoint is saved

    module.TensorboardLogger = Recorder  # type: ignore[attr-defined]


def rollout_drift_of(experience: Any) -> "Tensor | None":
    """Mean over the sampled tokens of `experience`: vLLM's log-probability minus the trainer's before its update.

    The same number as the `vllm_kl` that OpenRLHF computes for one of its losses. None where vLLM's were not recorded.
    """
    if experience.rollout_log_probs is None:
        return None
    mask = experience.action_mask.bool()
    difference = (experience.rollout_log_probs - experience.action_log_probs)[mask]
    return difference.sum() / max(1, difference.numel())


def _report_drift(module: ModuleType) -> None:
    """OpenRLHF reports `vllm_kl` for the ppo loss with a correction alone; the rule that reads it needs it for all."""
    stock = module.ActorPPOTrainer.training_step

    def training_step(self: Any, experience: Any, *rest: Any, **options: Any) -> dict[str, Any]:
        found: dict[str, Any] = stock(self, experience, *rest, **options)
        drift = rollout_drift_of(experience)
        if drift is not None:
            found["metrics"]["vllm_kl"], found["weights"]["vllm_kl"] = drift, "token"
        return found

    module.ActorPPOTrainer.training_step = training_step


def _end_the_loop(module: ModuleType) -> None:
    """OpenRLHF's loop ends only when no prompts are left."""
    stock = module.SamplesGenerator.generate_samples
    ending = run_of_this_process().ending

    def generate_samples(self: Any, **options: Any) -> tuple[list[Any], float | None, int, bool]:
        return ([], None, 0, True) if ending.exists() else stock(self, **options)

    module.SamplesGenerator.generate_samples = generate_samples


def _record_sft_steps(module: ModuleType) -> None:
    """The SFT trainer writes TensorBoard events in blocks of two minutes; a progress view needs each step."""
    stock = module.SFTTrainer.save_logs_and_checkpoints
    run = run_of_this_process()

    def save_logs_and_checkpoints(self: Any, args: Any, global_step: int, *rest: Any, **options: Any) -> None:
        if self.strategy.is_rank_0():
            record(run, global_step, rest[1] if len(rest) > 1 else options["logs_dict"])
        stock(self, args, global_step, *rest, **options)

    module.SFTTrainer.save_logs_and_checkpoints = save_logs_and_checkpoints


PATCHES = [
    Patch("openrlhf.trainer.ppo_trainer", ("TensorboardLogger",), apply=_record_steps),
    Patch("openrlhf.trainer.ray.ppo_actor", ("ActorPPOTrainer.training_step",), apply=_report_drift),
    Patch("openrlhf.trainer.ppo_utils.samples_generator", ("SamplesGenerator.generate_samples",), apply=_end_the_loop),
    Patch("openrlhf.trainer.sft_trainer", ("SFTTrainer.save_logs_and_checkpoints",), apply=_record_sft_steps),
]
