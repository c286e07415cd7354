"""LoRA: vLLM and the saved folder get merged weights, under the names of the model that training started with.

OpenRLHF 0.11.2 sends PEFT's parameters under PEFT's names, which vLLM's loader does not know, and saves the adapters
alone. A weight with an adapter is merged into a new tensor here (base + scale B A); the trained model stays as it is.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from r1searcher.engine.import_patches import Patch, after_import

if TYPE_CHECKING:
    from torch import Tensor

PATCHES: list[Patch] = []

after = after_import(PATCHES)

SENT_TOGETHER = 256 * 2**20
"""Bytes of merged weights that exist at the same time."""

Weights = list[tuple[str, "Tensor"]]


def merged_weights(network: Any, zero_stage: int) -> "Iterator[tuple[str, Tensor]]":
    """Name and tensor of every weight of `network` (a `peft.PeftModel`) as of a model without adapters.

    A weight with an adapter is a new tensor of the same shape and dtype, computed in fp32. The others are the
    parameters themselves, which under ZeRO-3 are sharded. All ranks must take all weights: under ZeRO-3 each merged one
    is gathered from them.
    """
    from peft.tuners.lora import LoraLayer

    model = network.get_base_model()
    layers: dict[str, Any] = {n: module for n, module in model.named_modules() if isinstance(module, LoraLayer)}
    weights = {f"{name}.base_layer.weight": layer for name, layer in layers.items()}
    adapters = {
        f"{name}.{parameter}"
        for name, layer in layers.items()
        for parameter, _ in layer.named_parameters()
        if not parameter.startswith("base_layer.")
    }
    for name, parameter in model.named_parameters():
        if name in weights:
            yield name.replace(".base_layer.", "."), _merged(weights[name], zero_stage)
        elif name not in adapters:
            yield name.replace(".base_layer.", "."), parameter


def _merged(layer: Any, zero_stage: int) -> "Tensor":
    import torch

    with torch.no_grad(), _whole(layer.parameters(), zero_stage):
        base = layer.get_base_layer().weight
        merged: Tensor = base.float()
        for adapter in layer.active_adapters:
            merged = merged + layer.get_delta_weight(adapter).float()
        merged = merged.to(base.dtype)
    merged.ds_shape = merged.shape  # what OpenRLHF asks a parameter for under ZeRO-3
    return merged


def _whole(parameters: "Iterable[Tensor]", zero_stage: int) -> AbstractContextManager[None]:
    """A context in which sharded parameters are whole, on all ranks."""
    import deepspeed

    gathered: AbstractContextManager[None] = deepspeed.zero.GatheredParameters(
        list(parameters), enabled=zero_stage == 3
    )
    return gathered


def in_groups(weights: "Iterable[tuple[str, Tensor]]") -> Iterator[Weights]:
    """The weights in order, in groups of at least `SENT_TOGETHER` bytes, except the last."""
    group: Weights = []
    size = 0
    for name, tensor in weights:
        group.append((name, tensor))
        size += tensor.numel() * tensor.element_size()
        if size >= SENT_TOGETHER:
            yield group
            group, size = [], 0
    if group:
        yield group


@after("openrlhf.trainer.ray.ppo_actor", "ActorPPOTrainer.broadcast_to_vllm")
def merged_weights_to_vllm(module: ModuleType) -> None:
    """The weight sync sends every parameter of the trained model by its name: PEFT's names, unmerged.

    It runs unchanged here, whichever way it sends (gloo, NCCL, CUDA IPC), for a model that has only merged weights.
    """
    stock = module.ActorPPOTrainer.broadcast_to_vllm

    def broadcast_to_vllm(self: Any) -> None:
        from peft import PeftModel

        actor = self.actor
        network = actor.model.module
        if not isinstance(network, PeftModel):
            stock(self)
            return
        try:
            for group in in_groups(merged_weights(network, self.strategy.args.ds.zero_stage)):
                self.actor = _model_of(group)
                stock(self)
        finally:
            self.actor = actor

    module.ActorPPOTrainer.broadcast_to_vllm = broadcast_to_vllm


def _model_of(weights: Weights) -> SimpleNamespace:
    """What OpenRLHF's sync reads of an actor."""
    network = SimpleNamespace(named_parameters=lambda: weights)
    return SimpleNamespace(model=SimpleNamespace(module=network))


@after("openrlhf.utils.deepspeed.deepspeed", "DeepspeedStrategy.save_model", "torch_dist_barrier_and_cuda_sync")
def whole_model_saved(module: ModuleType) -> None:
    """Of a model with adapters the engine saves the adapters alone, which nothing that reads a model folder expects."""
    stock = module.DeepspeedStrategy.save_model

    def save_model(self: Any, model: Any, tokenizer: Any, output_dir: str, **options: Any) -> None:
        from peft import PeftModel

        network = self._unwrap_model(model)
        if not isinstance(network, PeftModel):
            stock(self, model, tokenizer, output_dir, **options)
            return
        stage = self.args.ds.zero_stage
        weights: dict[str, Tensor] = {}
        for name, tensor in merged_weights(network, stage):
            with _whole([tensor], stage):
                if self.is_rank_0():
                    weights[name] = tensor.detach().cpu().clone()
        if self.is_rank_0():
            network.get_base_model().save_pretrained(output_dir, state_dict=weights, **options)
            tokenizer.save_pretrained(output_dir)
        module.torch_dist_barrier_and_cuda_sync()

    module.DeepspeedStrategy.save_model = save_model
