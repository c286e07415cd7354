"""OpenRLHF on GPUs: names replaced after import, each with its reason, no installed file edited."""

from types import ModuleType
from typing import Any

from r1searcher.engine.import_patches import Patch, after_import

PATCHES: list[Patch] = []

after = after_import(PATCHES)


@after("openrlhf.utils.deepspeed.deepspeed", "get_train_ds_config")
def adam_without_a_compiler(module: ModuleType) -> None:
    """DeepSpeed compiles its fused Adam with nvcc when the first run starts, and fails without a full CUDA toolkit.

    "torch_adam" is its own switch for torch's AdamW, whose "fused" kernel is precompiled. Adam on the host stays
    DeepSpeed's: it needs only a C++ compiler.
    """
    stock = module.get_train_ds_config

    def train_config(*args: Any, **kwargs: Any) -> dict[str, Any]:
        config: dict[str, Any] = stock(*args, **kwargs)
        offloaded = config.get("zero_optimization", {}).get("offload_optimizer", {}).get("device") == "cpu"
        optimizer = config.get("optimizer", {})
        if optimizer.get("type") in ("Adam", "AdamW") and not offloaded:
            config["optimizer"] = {**optimizer, "params": {**optimizer["params"], "torch_adam": True, "fused": True}}
        return config

    module.get_train_ds_config = train_config  # type: ignore[attr-defined]
