"""vLLM on a machine without a GPU: names replaced after import, each with its reason, no installed file edited."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from r1searcher.engine.cpu import CpuSettings
from r1searcher.engine.import_patches import Patch, after_import

PATCHES: list[Patch] = []
"""Patches of a run."""

SAMPLING: list[Patch] = []
"""Those with which a model is sampled without being trained, too."""

after = after_import(PATCHES)


@after("vllm.model_executor.layers.utils", "dispatch_cpu_unquantized_gemm")
def vllm_keeps_plain_weights(module: ModuleType) -> None:
    """vLLM packs each linear layer's weights at load time: later ones raise, or for lm_head are silently ignored."""
    import torch

    def plain(layer: Any, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    module.dispatch_cpu_unquantized_gemm = plain  # type: ignore[attr-defined]


@after("vllm.platforms.cpu", "CpuPlatform.check_and_update_config")
def cache_of_part_of_a_gib(module: ModuleType) -> None:
    """vLLM takes the size of its cache in whole GiB, which on a CPU are memory of the machine from the start."""
    check: Any = module.CpuPlatform.check_and_update_config.__func__

    def check_and_update_config(cls: type, vllm_config: Any) -> None:
        check(cls, vllm_config)
        vllm_config.cache_config.kv_cache_memory_bytes = int(CpuSettings.from_env().kv_cache_gib * 2**30)

    module.CpuPlatform.check_and_update_config = classmethod(check_and_update_config)


@after_import(SAMPLING)("vllm.v1.sample.ops.topk_topp_sampler", "TopKTopPSampler.forward_cpu", "apply_top_k_top_p")
def one_random_number_per_token(module: ModuleType) -> None:
    """vLLM draws an exponential random number for each token of the vocabulary, and for a request with a seed another
    one. With a small model that is half of the time; the inverse of the distribution function needs one per request."""

    def forward_cpu(self: Any, logits: Any, generators: Any, k: Any, p: Any) -> tuple[Any, Any]:
        import torch

        logits = module.apply_top_k_top_p(logits, k, p)
        returned = None
        if self.logprobs_mode == "processed_logits":
            returned = logits
        elif self.logprobs_mode == "processed_logprobs":
            returned = logits.log_softmax(dim=-1, dtype=torch.float32)
        return draw(logits, generators), returned

    module.TopKTopPSampler.forward_cpu = forward_cpu


def draw(logits: Any, generators: Mapping[int, Any]) -> Any:
    """A token per row of `logits` (rows x vocabulary), by the softmax's probabilities: shape (rows,), int64.

    `generators` are those of the rows that have their own; the others take torch's.
    """
    import torch

    # In double precision, since a sum of 50,000 rounded terms would shift what is drawn.
    cumulative = logits.softmax(dim=-1, dtype=torch.float32).cumsum(dim=-1, dtype=torch.float64)
    uniform = torch.rand(logits.shape[0], 1, dtype=torch.float64)
    for row, generator in generators.items():
        uniform[row] = torch.rand(1, dtype=torch.float64, generator=generator)
    # Strictly above what is drawn, so that a token without probability is never the one.
    return torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True).squeeze(-1)
