"""Trajectories of similar length together in a forward pass, so that little of it is padding.

Only the order inside an update changes. Its loss is divided by the trained tokens of the whole update, so that its
gradient is the same up to rounding. In stage 1 an episode with two searches is six times as long as one without.
"""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from r1searcher.engine.import_patches import Patch, after_import
from r1searcher.engine.training_rows import by_length_within_updates

PATCHES: list[Patch] = []

after = after_import(PATCHES)


class UpdatesByLength:
    """A sampler: OpenRLHF's random order, in which the `update` trajectories of each update are sorted by length."""

    def __init__(self, buffer: Any, update: int) -> None:
        self.buffer, self.update = buffer, update

    def __iter__(self) -> Iterator[int]:
        from torch.utils.data import RandomSampler

        order = list(RandomSampler(self.buffer))
        lengths = [int(self.buffer[place].total_length) for place in order]
        complete = by_length_within_updates(order, self.update, lengths)
        yield from complete
        yield from order[len(complete) :]

    def __len__(self) -> int:
        return len(self.buffer)


def _sorted_updates(module: ModuleType, trainer: Any) -> None:
    loader, stock = module.DataLoader, trainer.ppo_train

    def by_length(buffer: Any, *, batch_size: int, shuffle: bool, **options: Any) -> Any:
        if not shuffle or buffer.packing_samples:  # packed rows have no padding
            return loader(buffer, batch_size=batch_size, shuffle=shuffle, **options)
        return loader(buffer, batch_size=batch_size, sampler=UpdatesByLength(buffer, buffer.update), **options)

    def ppo_train(self: Any, *args: Any, **options: Any) -> Any:
        self.replay_buffer.update = self.strategy.accumulated_gradient * self.replay_buffer.sample_batch_size
        return stock(self, *args, **options)

    module.DataLoader, trainer.ppo_train = by_length, ppo_train  # type: ignore[attr-defined]


@after("openrlhf.trainer.ray.ppo_actor", "DataLoader", "ActorPPOTrainer.ppo_train")
def actor_updates_by_length(module: ModuleType) -> None:
    """OpenRLHF makes micro-batches of trajectories in random order, each padded to its longest one."""
    _sorted_updates(module, module.ActorPPOTrainer)


@after("openrlhf.trainer.ray.ppo_critic", "DataLoader", "CriticPPOTrainer.ppo_train")
def critic_updates_by_length(module: ModuleType) -> None:
    """The critic is trained in the same random order, with the same padding."""
    _sorted_updates(module, module.CriticPPOTrainer)


@after("openrlhf.trainer.ppo_utils.experience_maker", "RemoteExperienceMaker.split_rollout_samples")
def forward_passes_by_length(module: ModuleType) -> None:
    """Log-probabilities before an update are computed in batches of trajectories in the order of their questions.

    `index` is the place of a trajectory among all of the step, by which OpenRLHF finds the group of a question. With
    several trainers the order stays as it was: each gets consecutive batches, and one would get all the long ones.
    """
    stock = module.RemoteExperienceMaker.split_rollout_samples

    def split_rollout_samples(self: Any, samples: list[Any]) -> list[Any]:
        actor = self.args.actor
        several = actor.num_nodes * actor.num_gpus_per_node > 1
        if several or self.args.train.dynamic_batch_enable or self.args.ds.packing_samples:
            return list(stock(self, samples))
        order = sorted(range(len(samples)), key=lambda place: int(samples[place].total_length))
        batches = list(stock(self, [samples[place] for place in order]))
        for batch in batches:
            batch.index = [order[place] for place in batch.index]
        return batches

    module.RemoteExperienceMaker.split_rollout_samples = split_rollout_samples
