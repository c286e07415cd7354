"""Memory per card, on the host and on the disk, item by item.

States are counted as DeepSpeed's own estimators count them (`estimate_zero2_model_states_mem_needs` and its ZeRO-3
twin): bf16 weights and gradients, fp32 gradients, master weights and Adam's two moments. What else a step needs
is added to them. A byte count here is an estimate: kernels, fragmentation and communication buffers are one flat item.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from r1searcher.config.settings import Lora, Settings
from r1searcher.engine.openrlhf.algorithms import has_critic
from r1searcher.engine.openrlhf.patches.lora import SENT_TOGETHER
from r1searcher.engine.topology import Topology
from r1searcher.planning.shapes import ModelShape

GIB = 2**30

ALL_WEIGHTS = Lora()

LOGITS_FACTOR = 3.3
"""Bytes that the backward pass of the vocabulary's head peaks at, per byte of its fp32 logits: measured on CPU with
4,096 tokens and a vocabulary of 32,768, without a fused cross-entropy."""

OVERHEAD = 2 * GIB
"""CUDA context, kernels, communication buffers and fragmentation of one process."""

ASLEEP = 2 * GIB
"""What a vLLM engine keeps on the card while it sleeps."""


@dataclass(frozen=True, slots=True)
class CardMemory:
    """Bytes per card by item. Training and sampling alternate where they share cards."""

    training: Mapping[str, int]
    sampling: Mapping[str, int]
    shared: bool

    @property
    def peak(self) -> int:
        """The fullest card at its fullest moment."""
        return max(sum(self.training.values()), sum(self.sampling.values()))


def trained_parameters(shape: ModelShape, lora: Lora) -> int:
    """Parameters that have gradients: those of the adapters, or all."""
    return shape.adapter_parameters(lora.rank, lora.target_modules) if lora.rank else shape.parameters


def trained_model(shape: ModelShape, lora: Lora) -> int:
    """Parameters of the trained model, its weights and the adapters."""
    return shape.parameters + (trained_parameters(shape, lora) if lora.rank else 0)


def states(
    shape: ModelShape, zero_stage: int, cards: int, lora: Lora = ALL_WEIGHTS, *, value_bytes: int = 2
) -> dict[str, int]:
    """Bytes of weights, gradients and optimizer on one of `cards` cards; `value_bytes` is 2 for bf16, 4 for fp32."""
    trained = trained_parameters(shape, lora)
    gradients = 4 + (0 if zero_stage == 3 else value_bytes)  # at stage 3 with those of the gathered module alone
    whole = {
        "weights": value_bytes * trained_model(shape, lora),
        "gradients": gradients * trained,
        "optimizer": 12 * trained,
    }
    sharded = [(), ("optimizer",), ("gradients", "optimizer"), ("weights", "gradients", "optimizer")][zero_stage]
    items = {name: bytes_ // cards if name in sharded else bytes_ for name, bytes_ in whole.items()}
    if zero_stage == 3:
        items["gathered module"] = 4 * shape.largest_module
    return items


def activations(shape: ModelShape, tokens: int, *, checkpointing: bool, value_bytes: int = 2) -> int:
    """Bytes that the backward pass needs of a forward pass over `tokens` tokens, with a fused attention.

    One layer keeps about 8 hidden + 2 (query + key + value) + 4 intermediate values per token; with checkpointing one
    such layer, and the input of every layer.
    """
    projections = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
    layer = value_bytes * tokens * (8 * shape.hidden + 2 * projections + 4 * shape.intermediate)
    if checkpointing:
        return layer + value_bytes * tokens * shape.hidden * shape.layers
    return layer * shape.layers


def card_memory(settings: Settings, topology: Topology, shape: ModelShape, card: int) -> CardMemory:
    """`card` is the memory of one card, of which vLLM reserves its share."""
    engine, rl = settings.engine, settings.rl
    tokens = rl.micro_batch_size * settings.episode.max_context
    training = states(shape, engine.zero_stage, topology.trainer_gpus, settings.lora)
    training["activations"] = activations(shape, tokens, checkpointing=engine.gradient_checkpointing)
    training["logits"] = int(LOGITS_FACTOR * 4 * tokens * shape.vocabulary)
    training["overhead"] = OVERHEAD
    another_model = 2 * shape.parameters // (topology.trainer_gpus if engine.zero_stage == 3 else 1)
    if topology.reference and topology.colocate:
        training["reference model"] = another_model
    if topology.critic and topology.colocate:  # its optimizer and gradients leave the cards while the policy is trained
        training["critic"] = another_model
    weights = 2 * shape.parameters // topology.tensor_parallel
    reserved = int(card * engine.gpu_memory_utilization)
    sampling = {"vLLM weights": weights, "vLLM cache": max(0, reserved - weights - OVERHEAD), "overhead": OVERHEAD}
    if topology.colocate:
        training["vLLM, asleep"] = ASLEEP
        sampling["trained weights"] = training["weights"]
        if settings.lora.rank:
            sampling["merged weights"] = SENT_TOGETHER
    return CardMemory(training, sampling, topology.colocate)


def cache_tokens(memory: CardMemory, topology: Topology, shape: ModelShape) -> int:
    """Tokens that the caches of all vLLM engines hold together."""
    per_engine = memory.sampling["vLLM cache"] * topology.tensor_parallel // shape.kv_bytes_per_token
    return per_engine * topology.vllm_engines


def host_memory(topology: Topology, shape: ModelShape, lora: Lora = ALL_WEIGHTS) -> int:
    """Bytes per node: states that leave the cards while vLLM samples, and the weights of engines that sleep."""
    if not topology.colocate:
        return 4 * shape.parameters
    engines = topology.gpus_per_node // topology.tensor_parallel
    models = 2 if topology.critic else 1
    return 16 * trained_parameters(shape, lora) * models // topology.nodes + 2 * shape.parameters * engines


def checkpoint_bytes(shape: ModelShape, lora: Lora = ALL_WEIGHTS) -> int:
    """One ZeRO checkpoint: fp32 master weights and moments of what is trained, and all bf16 weights."""
    return 12 * trained_parameters(shape, lora) + 2 * trained_model(shape, lora)


def kept_on_disk(settings: Settings, shape: ModelShape) -> int:
    """Bytes of the checkpoints that a stage keeps, at least two of each model that it trains, and of its model."""
    kept = settings.checkpoint.kept * (2 if has_critic(settings.rl) else 1)
    return kept * checkpoint_bytes(shape, settings.lora) + 2 * shape.parameters
