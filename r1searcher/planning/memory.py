"""Memory per card, on the host and on the disk, item by item.

States are counted as DeepSpeed's own estimators count them (`estimate_zero2_model_states_mem_needs` and its ZeRO-3
twin): bf16 weights and gradients, fp32 gradients, master weights and Adam's two moments; with Adam in host memory the
weights alone are on the cards. What else a step needs is added to them. A byte count here is an estimate: kernels,
fragmentation and communication buffers are one flat item.
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

HOST_BUFFERS = 1.5
"""Bytes in host memory per byte of states there: the factor for buffers of DeepSpeed's estimators."""


@dataclass(frozen=True, slots=True)
class CardMemory:
    """Bytes per card by item. Training and sampling alternate where they share cards."""

    training: Mapping[str, int]
    sampling: Mapping[str, int]

    @property
    def totals(self) -> tuple[int, int]:
        """While training, and while sampling."""
        return sum(self.training.values()), sum(self.sampling.values())

    @property
    def peak(self) -> int:
        """The fullest card at its fullest moment."""
        return max(self.totals)


def trained_parameters(shape: ModelShape, lora: Lora) -> int:
    """Parameters that have gradients: those of the adapters, or all."""
    return shape.adapter_parameters(lora.rank, lora.target_modules) if lora.rank else shape.parameters


def trained_model(shape: ModelShape, lora: Lora) -> int:
    """Parameters of the trained model, its weights and the adapters."""
    return shape.parameters + (trained_parameters(shape, lora) if lora.rank else 0)


def states(
    shape: ModelShape,
    zero_stage: int,
    cards: int,
    lora: Lora = ALL_WEIGHTS,
    *,
    adam_offload: bool = False,
    value_bytes: int = 2,
) -> dict[str, int]:
    """Bytes of weights, gradients and optimizer on one of `cards` cards; `value_bytes` is 2 for bf16, 4 for fp32."""
    trained = trained_parameters(shape, lora)
    gradients = 4 + (0 if zero_stage == 3 else value_bytes)  # at stage 3 with those of the gathered module alone
    whole = {
        "weights": value_bytes * trained_model(shape, lora),
        "gradients": gradients * trained,
        "optimizer": 12 * trained,
    }
    if adam_offload:  # gradients pass through a buffer; at stage 1 they stay until the update
        whole = {"weights": whole["weights"], **({"gradients": value_bytes * trained} if zero_stage == 1 else {})}
    sharded = [(), ("optimizer",), ("gradients", "optimizer"), ("weights", "gradients", "optimizer")][zero_stage]
    items = {name: bytes_ // cards if name in sharded else bytes_ for name, bytes_ in whole.items()}
    if zero_stage == 3:
        items["gathered module"] = 4 * shape.largest_module
    return items


def host_states(shape: ModelShape, zero_stage: int, topology: Topology, lora: Lora = ALL_WEIGHTS) -> int:
    """Bytes per node of gradients, master weights and moments that Adam updates in host memory.

    At stages 1 and 2 every process also has the whole model in fp32 there while it starts.
    """
    shard = 16 / topology.nodes
    per_parameter = shard if zero_stage == 3 else max(4 * topology.gpus_per_node, shard)
    return int(HOST_BUFFERS * per_parameter * trained_parameters(shape, lora))


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


def tokens_with_logits(settings: Settings) -> int:
    """The most tokens in a pass of RL whose logits are computed: those that the model wrote, or all."""
    episode = settings.episode
    if not settings.engine.head_on_action_tokens or settings.rl.dynamic_batch:  # short ones may be little else
        return settings.tokens_per_pass
    written = (episode.max_searches + 1) * episode.max_new_tokens
    return settings.rl.micro_batch_size * min(episode.max_context, written)


def card_memory(settings: Settings, topology: Topology, shape: ModelShape, card: int) -> CardMemory:
    """Of RL; `card` is the memory of one card, of which vLLM reserves its share."""
    engine = settings.engine
    training = _training(settings, shape, topology.trainer_gpus, settings.tokens_per_pass, tokens_with_logits(settings))
    weights = 2 * shape.parameters // topology.tensor_parallel
    reserved = int(card * engine.gpu_memory_utilization)
    sampling = {"vLLM weights": weights, "vLLM cache": max(0, reserved - weights - OVERHEAD), "overhead": OVERHEAD}
    if topology.colocate:
        others = _other_models(settings, topology, shape)
        stays = {"trained weights": training["weights"], **others}
        if settings.lora.rank:
            stays["merged weights"] = SENT_TOGETHER
        sampling |= {**stays, "overhead": 2 * OVERHEAD}  # two processes
        training |= {**others, "vLLM, asleep": ASLEEP}
    return CardMemory(training, sampling)


def sft_memory(settings: Settings, topology: Topology, shape: ModelShape) -> CardMemory:
    """Of the SFT, whose rows may be all written by the model."""
    tokens = settings.sft.micro_batch_size * settings.episode.max_context
    return CardMemory(_training(settings, shape, topology.sft_processes, tokens, tokens), {})


def _training(settings: Settings, shape: ModelShape, cards: int, tokens: int, with_logits: int) -> dict[str, int]:
    engine = settings.engine
    items = states(shape, engine.zero_stage, cards, settings.lora, adam_offload=engine.adam_offload)
    items["activations"] = activations(shape, tokens, checkpointing=engine.gradient_checkpointing)
    items["logits"] = int(LOGITS_FACTOR * 4 * with_logits * shape.vocabulary)
    items["overhead"] = OVERHEAD
    return items


def _other_models(settings: Settings, topology: Topology, shape: ModelShape) -> dict[str, int]:
    """Models that share the trained model's cards, at any time. Optimizer and gradients of the critic leave the cards
    while the policy is trained."""
    whole = 2 * shape.parameters // (topology.trainer_gpus if settings.engine.zero_stage == 3 else 1)
    items = {}
    if topology.reference:
        items["reference model"] = 2 * shape.largest_module if settings.engine.reference_offload else whole
    if topology.critic:
        items["critic"] = whole
    return items


def cache_tokens(memory: CardMemory, topology: Topology, shape: ModelShape) -> int:
    """Tokens that the caches of all vLLM engines hold together."""
    per_engine = memory.sampling["vLLM cache"] * topology.tensor_parallel // shape.kv_bytes_per_token
    return per_engine * topology.vllm_engines


def host_memory(settings: Settings, topology: Topology, shape: ModelShape) -> int:
    """Bytes per node: states in host memory, always or while vLLM samples, and the weights of engines that sleep."""
    engine, lora = settings.engine, settings.lora
    models = 2 if topology.critic else 1
    reference = 2 * shape.parameters // topology.nodes if topology.reference and engine.reference_offload else 0
    offloaded = models * host_states(shape, engine.zero_stage, topology, lora) if engine.adam_offload else 0
    if not topology.colocate:
        return reference + (offloaded or 4 * shape.parameters)
    asleep = 2 * shape.parameters * (topology.gpus_per_node // topology.tensor_parallel)
    return reference + asleep + (offloaded or 16 * trained_parameters(shape, lora) * models // topology.nodes)


def checkpoint_bytes(shape: ModelShape, lora: Lora = ALL_WEIGHTS) -> int:
    """One ZeRO checkpoint: fp32 master weights and moments of what is trained, and all bf16 weights."""
    return 12 * trained_parameters(shape, lora) + 2 * trained_model(shape, lora)


def kept_on_disk(settings: Settings, shape: ModelShape) -> int:
    """Bytes of the checkpoints that a stage keeps, at least two of each model that it trains, and of its model."""
    kept = settings.checkpoint.kept * (2 if has_critic(settings.rl) else 1)
    return kept * checkpoint_bytes(shape, settings.lora) + 2 * shape.parameters
