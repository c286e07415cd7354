"""Rollouts ahead of training: which weights an episode was sampled from, how old they are, and how such a run ends.

In OpenRLHF's asynchronous training one process generates samples (`GenerateSamplesActor`) and another one trains
(`TrainingActor`). Weights are known here by the step after which they were sent: 0 for those that training starts with.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from types import ModuleType
from typing import Any

from r1searcher.engine.environment import run_of_this_process
from r1searcher.engine.import_patches import Patch, after_import
from r1searcher.engine.vllm.generator import as_generation
from r1searcher.rewards.measures import LARGEST_STALENESS, STALENESS
from r1searcher.watch.rules import SYNC_KL

PATCHES: list[Patch] = []

after = after_import(PATCHES)

WEIGHTS_STEP = "weights_step"
"""Of an episode, in its trajectory and among what OpenRLHF carries with it: the step of the weights it started with."""

PROBES, PROBE_TOKENS = 16, 16
"""Prompts that are continued after each weight sync, at least, and tokens of a continuation, at most."""


@after("openrlhf.trainer.ray.vllm_engine", "RolloutRayActor.update_weight", "RolloutRayActor.update_weight_cuda_ipc")
def engines_know_their_weights(module: ModuleType) -> None:
    """A weight sync passes tensors without a number, so that nothing says which weights an episode was sampled from.

    The number counts only if tensors arrived since the one before: a sync that sent nothing changes nothing.
    """
    import ray

    stock = module.RolloutRayActor.__ray_actor_class__

    class RolloutRayActor(stock):  # type: ignore[misc,valid-type]
        weights_step = 0
        received = False

        async def update_weight(self, *args: Any, **options: Any) -> Any:
            done = await super().update_weight(*args, **options)
            self.received = True
            return done

        async def update_weight_cuda_ipc(self, *args: Any, **options: Any) -> Any:
            done = await super().update_weight_cuda_ipc(*args, **options)
            self.received = True
            return done

        def weights_are_of(self, step: int) -> None:
            if self.received:
                self.weights_step, self.received = step, False

    module.RolloutRayActor = ray.remote(RolloutRayActor)  # type: ignore[attr-defined]


@after(
    "openrlhf.trainer.ppo_trainer",
    "BasePPOTrainer.init_checkpoint_states",
    "BasePPOTrainer.train_step",
    "BasePPOTrainer.broadcast_to_vllm",
    "batch_vllm_engine_call",
    "PPOTrainer",
)
def steps_report_staleness(module: ModuleType) -> None:
    """OpenRLHF does not count the updates between the weights of its samples and the step that trains them."""
    import ray

    base = module.BasePPOTrainer
    restore, train, send = base.init_checkpoint_states, base.train_step, base.broadcast_to_vllm
    base.weights_step = 0  # of the trained model

    def init_checkpoint_states(self: Any) -> dict[str, Any]:
        states: dict[str, Any] = restore(self)
        self.weights_step = states["global_step"]
        return states

    def train_step(self: Any, rollout_samples: list[Any], global_step: int) -> tuple[dict[str, Any], int]:
        sampled_from = [int(sample.info.pop(WEIGHTS_STEP)) for sample in rollout_samples if WEIGHTS_STEP in sample.info]
        self.weights_step = global_step + 1
        status, step = train(self, rollout_samples, global_step)
        ahead = self.args.train.async_enable
        if sampled_from and (ahead or min(sampled_from) < global_step):
            status |= staleness(sampled_from, global_step)
        if ahead:
            status[SYNC_KL] = sync_drift(self, rollout_samples)
        return status, step

    def broadcast_to_vllm(self: Any) -> None:
        send(self)
        module.batch_vllm_engine_call(self.vllm_engines, "weights_are_of", self.weights_step)

    base.init_checkpoint_states, base.train_step, base.broadcast_to_vllm = (
        init_checkpoint_states,
        train_step,
        broadcast_to_vllm,
    )
    # Ray copied the methods into the class of the actor when the module was imported.
    module.PPOTrainer = ray.remote(module.PPOTrainer.__ray_actor_class__)  # type: ignore[attr-defined]


def staleness(sampled_from: Sequence[int], updates: int) -> dict[str, float]:
    """Mean and maximum over the episodes of a step of its `updates` before, minus those of the sampled weights.

    >>> staleness([3, 4], updates=4)
    {'staleness': 0.5, 'staleness_max': 1.0}
    """
    ages = [updates - step for step in sampled_from]
    return {STALENESS.name: fmean(ages), LARGEST_STALENESS.name: float(max(ages))}


def sync_drift(trainer: Any, samples: Sequence[Any]) -> float:
    """The drift of tokens that vLLM samples from the weights just sent to it.

    Prompts of `samples` are continued by some tokens in every engine. Returns the mean over these tokens of vLLM's
    log-probability minus the trainer's, both from the same weights: no other sync happens before the next step.
    """
    import ray
    import torch
    from vllm import SamplingParams

    args, group, engines = trainer.args, trainer.actor_model_group, trainer.vllm_engines
    prompts = list(dict.fromkeys(filter(None, map(prompt_of, samples))))
    processes = len(group._actor_handlers) // group.duplicate_actors
    count = -(-max(PROBES, len(engines)) // processes) * processes  # all processes compute the same number of rows
    asked = [list(prompts[number % len(prompts)]) for number in range(count)]
    sampling = SamplingParams(
        temperature=args.rollout.temperature,
        top_p=args.rollout.top_p,
        max_tokens=min(PROBE_TOKENS, args.rollout.max_new_tokens),
        logprobs=1,
    )
    outputs = ray.get(
        [engines[number % len(engines)].generate.remote(ids, sampling) for number, ids in enumerate(asked)]
    )
    turns = [as_generation(output.outputs[0]) for output in outputs]
    rows = [torch.tensor([[*ids, *turn.token_ids]]) for ids, turn in zip(asked, turns, strict=True)]
    sampled = [torch.arange(1, row.shape[1])[None] >= len(ids) for row, ids in zip(rows, asked, strict=True)]
    refs = group.async_run_method_batch(
        method_name="forward", sequences=rows, action_mask=sampled, attention_mask=list(map(torch.ones_like, rows))
    )
    copies = args.ds.ring_attn_size * args.ds.tensor_parallel_size
    trained = trainer.experience_maker._flatten_results(refs, copies)
    by_trainer = torch.cat([found[mask] for found, mask in zip(trained, sampled, strict=True)])
    by_vllm = torch.tensor([value for turn in turns for value in turn.logprobs or ()])
    return float((by_vllm - by_trainer.float()).mean())


def prompt_of(sample: Any) -> tuple[int, ...]:
    """The tokens before the first sampled one; empty if none was sampled. The mask starts with the second token."""
    sampled = sample.action_mask[0].nonzero()
    return tuple(sample.sequences[0][: int(sampled[0]) + 1].tolist()) if len(sampled) else ()


class UntilTheEnd:
    """The queue of a run's rollouts for the process that trains them: once the run's ending is decided, none come out.

    `slots` gets one entry for each step taken from the queue, as the generator waits for it. What was sampled ahead is
    dropped until the generator, which sees the same file, says that it is done.
    """

    def __init__(self, queue: Any, slots: Any, ending: Path) -> None:
        self.queue, self.slots, self.ending = queue, slots, ending

    def get(self, block: bool = True) -> Any:
        while True:
            found = self.queue.get(block=block)
            if found == "done" or not self.ending.exists():
                return found
            self.slots.put(0, block=True)


@after("openrlhf.trainer.ppo_trainer_async", "TrainingActor.fit")
def end_with_the_step_that_decides(module: ModuleType) -> None:
    """OpenRLHF's loop trains everything that was sampled before it ends."""
    import ray

    stock = module.TrainingActor.__ray_actor_class__

    class TrainingActor(stock):  # type: ignore[misc,valid-type]
        rollout_queue: Any

        def fit(self, global_step: int = 0) -> None:
            self.rollout_queue = UntilTheEnd(self.rollout_queue, self.rollout_slots, run_of_this_process().ending)
            super().fit(global_step=global_step)

    module.TrainingActor = ray.remote(TrainingActor)  # type: ignore[attr-defined]
