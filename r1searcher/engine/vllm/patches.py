"""vLLM on a machine without a GPU: names replaced after import, each with its reason, no installed file edited."""

from types import ModuleType
from typing import Any

from r1searcher.engine.import_patches import Patch, after_import

PATCHES: list[Patch] = []

after = after_import(PATCHES)


@after("vllm.model_executor.layers.utils", "dispatch_cpu_unquantized_gemm")
def vllm_keeps_plain_weights(module: ModuleType) -> None:
    """vLLM packs each linear layer's weights at load time: later ones raise, or for lm_head are silently ignored."""
    import torch

    def plain(layer: Any, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    module.dispatch_cpu_unquantized_gemm = plain  # type: ignore[attr-defined]
