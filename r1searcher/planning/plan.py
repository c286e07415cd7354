"""A plan of one stage: what it needs per card, and the smallest change that makes it fit."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from r1searcher.config.settings import Settings, Stage, replaced
from r1searcher.engine.openrlhf.arithmetic import placement_problems
from r1searcher.engine.topology import Topology, topology_of
from r1searcher.planning.derive import Machine, as_toml, derive, shortfall
from r1searcher.planning.memory import (
    GIB,
    CardMemory,
    cache_tokens,
    card_memory,
    host_memory,
    kept_on_disk,
    trained_parameters,
)
from r1searcher.planning.shapes import ModelShape
from r1searcher.questions.named import is_here, open_dataset

STAGE: Stage = "stage2"
"""What is planned: both stages of RL take the same."""

TOKENS_PER_EPISODE = (200, 800)
"""Tokens that a model writes per episode, few and many: assumed; a run logs its own as `new_tokens`."""

PEAK_FLOPS, BANDWIDTH = 989e12, 3.35e12
"""An H100 SXM: dense bf16 operations per second, and bytes per second of its memory (the vendor's data sheet)."""

HOST_BANDWIDTH = 100e9
"""Bytes per second of a node's host memory: assumed, not measured."""

PADDING = 1.5
"""Tokens of a pass over several padded trajectories, per token of theirs: assumed, not measured."""

TRAINING_SHARE, SAMPLING_SHARE = (0.25, 0.45), (0.3, 0.6)
"""Shares of these peaks that training and sampling reach, low and high: assumed, not measured."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`change` is the setting that would make the plan fit; empty if it fits, or if no single setting helps."""

    settings: Settings
    topology: Topology
    shape: ModelShape
    memory: CardMemory
    card: int
    steps: int | None
    hours_per_step: tuple[float, float]
    refusals: tuple[str, ...]
    """Why a stage would refuse the settings, each with what to set instead."""

    derived: tuple[str, ...] = ()
    """A sentence per setting that was left open."""

    change: str = ""

    @property
    def fits(self) -> bool:
        return not self.problems

    @property
    def problems(self) -> list[str]:
        return [*self.refusals, *[self.shortfall] * bool(self.shortfall)]

    @property
    def shortfall(self) -> str:
        """Why it does not fit the cards; empty if it does."""
        return shortfall(self.memory, self.card, self.episodes_at_once)

    @property
    def host_memory(self) -> int:
        """Bytes per node."""
        return host_memory(self.settings, self.topology, self.shape)

    @property
    def checkpoint_disk(self) -> int:
        """Bytes of the checkpoints and the model."""
        return kept_on_disk(self.settings, self.shape)

    @property
    def searches_per_step(self) -> int:
        """At most."""
        return self.settings.rl.rollouts * self.settings.episode.max_searches

    @property
    def tokens_per_step(self) -> tuple[int, int]:
        """The fewest and the most that the model writes, as assumed."""
        low, high = TOKENS_PER_EPISODE
        return self.settings.rl.rollouts * low, self.settings.rl.rollouts * high

    @property
    def hours(self) -> tuple[float, float] | None:
        """The fewest and the most of the stage; None if its steps are not known."""
        low, high = self.hours_per_step
        return (self.steps * low, self.steps * high) if self.steps else None

    @property
    def episodes_at_once(self) -> int:
        """Episodes of full length for which vLLM has a cache."""
        return cache_tokens(self.memory, self.topology, self.shape) // self.settings.episode.max_context

    def as_json(self) -> dict[str, Any]:
        """Sizes in GiB."""
        return {
            "fits": self.fits,
            "problems": self.problems,
            "change": self.change,
            "derived": list(self.derived),
            "model": {"path": self.settings.model.path, "parameters": self.shape.parameters},
            "cards": {"nodes": self.topology.nodes, "per_node": self.topology.gpus_per_node, "gib": self.card / GIB},
            "training": {name: round(value / GIB, 2) for name, value in self.memory.training.items()},
            "sampling": {name: round(value / GIB, 2) for name, value in self.memory.sampling.items()},
            "peak": round(self.memory.peak / GIB, 2),
            "episodes_at_once": self.episodes_at_once,
            "host_memory": round(self.host_memory / GIB, 1),
            "checkpoint_disk": round(self.checkpoint_disk / GIB, 1),
            "rollouts_per_step": self.settings.rl.rollouts,
            "searches_per_step_at_most": self.searches_per_step,
            "tokens_per_step": list(self.tokens_per_step),
            "steps": self.steps,
            "hours_per_step": list(self.hours_per_step),
            "hours": self.hours and list(self.hours),
        }


def make_plan(settings: Settings, shape: ModelShape, card: int) -> Plan:
    """A plan for cards of `card` bytes, open settings derived, with the first single change that makes it fit where it
    does not."""
    derived = derive(settings, STAGE, shape, Machine(card=card))
    plan = replace(_plan(derived.settings, shape, card), derived=derived.reasons)
    if plan.fits:
        return plan
    for changes in _changes(derived.settings):
        if _plan(replaced(derived.settings, changes), shape, card).fits:
            return replace(plan, change=" and ".join(f"{key} = {as_toml(value)}" for key, value in changes.items()))
    return plan


def _plan(settings: Settings, shape: ModelShape, card: int) -> Plan:
    topology = topology_of(settings, device="gpu")
    memory = card_memory(settings, topology, shape, card)
    return Plan(
        settings=settings,
        topology=topology,
        shape=shape,
        memory=memory,
        card=card,
        steps=_steps(settings),
        hours_per_step=_hours_per_step(settings, topology, shape, memory),
        refusals=tuple(placement_problems(settings, topology, STAGE)),
    )


def _changes(settings: Settings) -> Iterator[dict[str, Any]]:
    """Single changes, the least first: what costs time before what costs host memory, length or cards."""
    rl, engine, context = settings.rl, settings.engine, settings.episode.max_context
    if not engine.head_on_action_tokens:
        yield {"engine.head_on_action_tokens": True}
    if rl.max_tokens_per_gpu and rl.max_tokens_per_gpu > context:
        yield {"rl.max_tokens_per_gpu": context}
    for size in _halves(rl.micro_batch_size, 1):
        yield {"rl.micro_batch_size": size}
    if not engine.gradient_checkpointing:
        yield {"engine.gradient_checkpointing": True}
    if engine.zero_stage < 3:
        yield {"engine.zero_stage": 3}
    for share in (0.5, 0.4, 0.3):
        if share < engine.gpu_memory_utilization:
            yield {"engine.gpu_memory_utilization": share}
    if rl.kl_coef and not engine.reference_offload:
        yield {"engine.reference_offload": True, **({} if engine.zero_stage == 3 else {"engine.zero_stage": 3})}
    if not engine.adam_offload:
        yield {"engine.adam_offload": True, **({} if engine.zero_stage else {"engine.zero_stage": 2})}
    engines = engine.tensor_parallel
    while 2 * engines <= engine.gpus:
        engines *= 2
        yield {"engine.tensor_parallel": engines}
    for shorter in _halves(context, 2048):
        yield {"episode.max_context": shorter}
    gpus = engine.gpus
    while gpus < 64:
        gpus *= 2
        yield {"engine.gpus": gpus}


def _steps(settings: Settings) -> int | None:
    """Those of the settings, or of one pass over the questions if these are on this machine."""
    data = settings.data
    if settings.rl.steps or not data.train or not is_here(data.train, data.folder, training=True):
        return settings.rl.steps
    return _questions(data.train, data.folder, data.limit) // settings.rl.questions_per_step or None


@cache
def _questions(train: str, folder: str, limit: int | None) -> int:
    return len(open_dataset(train, folder, limit=limit, training=True).questions)


def _halves(size: int, least: int) -> Iterator[int]:
    while size // 2 >= least:
        size //= 2
        yield size


def _is_packed(settings: Settings) -> bool:
    return settings.engine.packing or settings.rl.dynamic_batch or settings.rl.micro_batch_size == 1


def _on_the_host(settings: Settings, topology: Topology, shape: ModelShape) -> float:
    """Seconds per step that Adam takes in host memory: it reads and writes 30 bytes per parameter in each update."""
    if not settings.engine.adam_offload:
        return 0.0
    updates = settings.rl.rollouts / settings.rl.batch_size
    return updates * 30 * trained_parameters(shape, settings.lora) / (topology.nodes * HOST_BANDWIDTH)


def _hours_per_step(
    settings: Settings, topology: Topology, shape: ModelShape, memory: CardMemory
) -> tuple[float, float]:
    """The fewest and the most hours per step, under the assumptions above; searches overlap with generation.

    Asynchronous rollouts overlap with training.
    """
    rollouts = settings.rl.rollouts
    found = []
    for written, training, sampling in zip(TOKENS_PER_EPISODE, TRAINING_SHARE[::-1], SAMPLING_SHARE[::-1], strict=True):
        context = min(settings.episode.max_context, 3 * written)
        backward = 2 if settings.lora.rank else 4  # no gradients of the weights that have adapters
        passes = 2 + backward + 2 * settings.engine.gradient_checkpointing + 2 + 2 * topology.reference
        operations = passes * shape.parameters * rollouts * context * (1 if _is_packed(settings) else PADDING)
        trained = operations / (topology.trainer_gpus * PEAK_FLOPS * training) + _on_the_host(settings, topology, shape)
        slots = cache_tokens(memory, topology, shape) // context
        at_once = max(1, min(rollouts, slots))
        read = 2 * shape.parameters * topology.vllm_engines + at_once * context * shape.kv_bytes_per_token
        seconds_per_token = read / (topology.vllm_gpus * BANDWIDTH * sampling)
        sampled = rollouts / at_once * written * seconds_per_token
        seconds = max(trained, sampled) if topology.async_steps else trained + sampled
        found.append(seconds / 3600)
    return found[0], found[1]
