"""Settings that were left open on GPUs, from the model's shape and the memory of the cards.

The first combination that fits, in the order of the time that a step takes: smaller micro-batches cost less than
recomputed activations, these less than sharded weights, and host memory costs most. A setting that is given stays.
"""

import itertools
import math
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from r1searcher.config.settings import Settings, Stage, derived_keys, replaced
from r1searcher.engine.cluster.address import cluster_address
from r1searcher.engine.cluster.facts import machine_memory
from r1searcher.engine.topology import Topology, device_of, gpu_count, topology_of
from r1searcher.errors import InputError, R1Error
from r1searcher.planning.memory import (
    GIB,
    OVERHEAD,
    CardMemory,
    cache_tokens,
    card_memory,
    host_memory,
    sft_memory,
)
from r1searcher.planning.shapes import ModelShape, shape_of

MARGIN = 0.95
"""Share of a card that a plan may fill."""

MOST_OF_A_CARD = 0.9
"""Largest share of a card that is derived for vLLM."""

_UTILIZATION = "engine.gpu_memory_utilization"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a run may use. None: not known, and not limited."""

    card: int
    """Bytes of one card."""

    cards: int | None = None
    host: int | None = None
    """Bytes of host memory per node."""


@dataclass(frozen=True, slots=True)
class Derived:
    """Complete settings, and one sentence per setting that was derived: its name, its value and why."""

    settings: Settings
    reasons: tuple[str, ...] = ()


def complete(settings: Settings, stage: Stage) -> Derived:
    """The settings of a stage on this machine or its cluster; without GPUs they are complete as they are.

    They stay as they are, with the reason, for a model whose shape is not known. Raises `InputError` if the cards'
    memory is needed and not known.
    """
    keys = _open(settings, stage)
    try:
        if not keys or device_of(settings) == "cpu":
            return Derived(settings)
    except InputError:  # the check of the device reports it with all other problems
        return Derived(settings)
    if not settings.model.path:  # likewise
        return Derived(settings)
    try:
        shape = shape_of(settings.model.path)
    except R1Error as error:
        return Derived(settings, (f"{', '.join(keys)}: the defaults, not derived ({error})",))
    card = card_bytes(settings)
    if card is None:
        raise InputError(
            f"engine.gpu_memory: the driver on this machine does not say how much memory a GPU has, and "
            f"{', '.join(keys)} follow from it; set engine.gpu_memory to its GB, or set these"
        )
    here = cluster_address(settings) is None
    machine = Machine(card=card, cards=gpu_count() if here else None, host=machine_memory() if here else None)
    return derive(settings, stage, shape, machine)


def card_bytes(settings: Settings) -> int | None:
    """Memory of one card: as set, or of the smallest one that NVIDIA's driver lists; None if it lists none."""
    if settings.engine.gpu_memory is not None:
        return int(settings.engine.gpu_memory * 1e9)
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        return min(int(line) for line in done.stdout.split()) * 2**20
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def derive(settings: Settings, stage: Stage, shape: ModelShape, machine: Machine) -> Derived:
    """The open settings of a stage on GPUs, as complete settings; those that take the least memory if none fit."""
    keys = _open(settings, stage)
    if not keys:
        return Derived(settings)
    search = _Search(settings, stage, shape, machine)
    chosen = search.first(keys)
    said = {key: f"{key} = {as_toml(_value(chosen, key))}" for key in keys}
    if problem := search.problem(chosen):
        return Derived(chosen, (f"{', '.join(said.values())}: nothing fits; {problem} even with these values",))
    return Derived(chosen, tuple(f"{value}: {search.reason(chosen, key)}" for key, value in said.items()))


def shortfall(memory: CardMemory, card: int, episodes: int | None = None) -> str:
    """Why a stage does not fit a card; empty if it does. `episodes`: how many vLLM's cache holds, if it samples."""
    if memory.peak > MARGIN * card:
        return f"a card would need {memory.peak / GIB:.1f} of {card / GIB:.1f} GiB"
    return "vLLM's cache would not hold one episode" if episodes == 0 else ""


def _open(settings: Settings, stage: Stage) -> tuple[str, ...]:
    """The open settings that the stage reads, from those that cost most time to those that cost least."""
    of_sft = ("engine.adam_offload", "engine.zero_stage", "engine.gradient_checkpointing", "sft.micro_batch_size")
    of_rl = (
        "engine.colocate",
        "engine.adam_offload",
        "engine.reference_offload",
        "engine.zero_stage",
        "engine.gradient_checkpointing",
        "rl.micro_batch_size",
        _UTILIZATION,
    )
    read = of_sft if stage == "sft" else of_rl
    unset, rl, stage_of_zero = set(derived_keys(settings)), settings.rl, settings.engine.zero_stage
    given = "engine.zero_stage" not in unset
    without_effect = {
        "engine.reference_offload": not rl.kl_coef or (given and stage_of_zero < 3),
        "engine.adam_offload": given and stage_of_zero == 0,
        "rl.micro_batch_size": rl.dynamic_batch and rl.max_tokens_per_gpu is not None,
    }
    return tuple(key for key in read if key in unset and not without_effect.get(key))


@dataclass(slots=True)
class _Search:
    settings: Settings
    stage: Stage
    shape: ModelShape
    machine: Machine
    options: dict[str, Sequence[Any]] = field(default_factory=dict)

    def first(self, keys: Sequence[str]) -> Settings:
        """The first candidate that fits, or the last one."""
        self.options = {key: self._options(key) for key in keys if key != _UTILIZATION}
        candidate = self.settings
        for candidate in self._candidates():
            if not self.problem(candidate):
                return candidate
        return candidate

    def _candidates(self) -> Iterator[Settings]:
        for values in itertools.product(*self.options.values()):
            candidate = replaced(self.settings, dict(zip(self.options, values, strict=True)))
            if not candidate.engine.reference_offload or candidate.engine.zero_stage == 3:  # else without effect
                yield self._with_utilization(candidate)

    def _options(self, key: str) -> Sequence[Any]:
        """Values in the order of preference."""
        engine, processes = self.settings.engine, self._topology(self.settings).trainer_gpus
        if key == "engine.colocate":
            return self._placements()
        if key == "engine.zero_stage":
            return (3,) if engine.gradient_accumulation == "fp32" else (2, 3)
        if key == "sft.micro_batch_size":
            return _micro_batches(8, self.settings.sft.batch_size, engine.gpus)
        if key == "rl.micro_batch_size":
            return _micro_batches(4, self.settings.rl.batch_size, processes)
        return (False, True)

    def _placements(self) -> Sequence[bool]:
        """Colocated, where the processes allow it; separate too, where there are cards for it."""
        engine = self.settings.engine
        if engine.async_steps or engine.zero_stage == 0:
            return (False,)
        shared = self._topology(replaced(self.settings, {"engine.colocate": True}))
        separate = self._topology(replaced(self.settings, {"engine.colocate": False}))
        cards = self.machine.cards
        together = (True,) if shared.trainer_gpus == shared.vllm_gpus else ()
        return (*together, *((False,) if not together or (cards is not None and separate.gpus <= cards) else ()))

    def _topology(self, settings: Settings) -> Topology:
        return topology_of(settings, "gpu")

    def _with_utilization(self, candidate: Settings) -> Settings:
        """With the share of a card for vLLM that the candidate leaves, if that is open."""
        if self.stage == "sft" or _UTILIZATION not in derived_keys(self.settings):
            return candidate
        share = MOST_OF_A_CARD
        if candidate.engine.colocate:
            free = MARGIN * self.machine.card - _beside_vllm(self._memory(candidate))
            share = min(share, math.floor(20 * free / self.machine.card) / 20)
        return replaced(candidate, {_UTILIZATION: max(0.05, share)})

    def _memory(self, candidate: Settings) -> CardMemory:
        topology = self._topology(candidate)
        if self.stage == "sft":
            return sft_memory(candidate, topology, self.shape)
        return card_memory(candidate, topology, self.shape, self.machine.card)

    def problem(self, candidate: Settings) -> str:
        """Why a candidate does not fit; empty if it does."""
        memory, topology = self._memory(candidate), self._topology(candidate)
        episodes = None
        if self.stage != "sft":
            episodes = cache_tokens(memory, topology, self.shape) // candidate.episode.max_context
            host = host_memory(candidate, topology, self.shape)
            if self.machine.host is not None and host > self.machine.host:
                return f"{host / GIB:.0f} of {self.machine.host / GIB:.0f} GiB of host memory would be needed"
        return shortfall(memory, self.machine.card, episodes)

    def reason(self, chosen: Settings, key: str) -> str:
        """Why the value before this one in the order of preference does not fit; for the first, what the card needs."""
        memory = self._memory(chosen)
        if key == _UTILIZATION:
            return (
                f"the trained model takes {_beside_vllm(memory) / GIB:.1f} GiB of a card while vLLM samples"
                if chosen.engine.colocate
                else "vLLM does not share its cards"
            )
        place = self.options[key].index(_value(chosen, key))
        if not place:
            return f"a card needs {memory.peak / GIB:.1f} of {self.machine.card / GIB:.1f} GiB"
        before = self.options[key][place - 1]
        later = list(self.options)[list(self.options).index(key) + 1 :]  # even where these save most
        least = replaced(chosen, {key: before, **{other: self.options[other][-1] for other in later}})
        problem = self.problem(self._with_utilization(least))
        return f"with {as_toml(before)} {problem}" if problem else "engine.reference_offload needs it"


def _beside_vllm(memory: CardMemory) -> int:
    """Bytes of a card that are not vLLM's while it samples."""
    of_vllm = memory.sampling["vLLM weights"] + memory.sampling["vLLM cache"] + OVERHEAD
    return sum(memory.sampling.values()) - of_vllm


def _micro_batches(most: int, batch: int, processes: int) -> Sequence[int]:
    """Sizes that divide every process's share of an update, the largest first."""
    share = max(1, batch // processes)
    sizes = (most >> halvings for halvings in range(most.bit_length()))
    return [size for size in sizes if share % size == 0]


def _value(settings: Settings, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(settings, section), name)


def as_toml(value: Any) -> str:
    """A value as it is written in a settings file."""
    return str(value).lower() if isinstance(value, bool) else str(value)
