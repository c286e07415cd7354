"""OpenRLHF's updates of weights, on both devices: Adam without a compiler, and gradients of all dynamic batches."""

from types import ModuleType
from typing import Any

from r1searcher.engine import cpu
from r1searcher.engine.import_patches import Patch, after_import

PATCHES: list[Patch] = []

after = after_import(PATCHES)


@after("openrlhf.utils.deepspeed.deepspeed", "get_train_ds_config")
def adam_without_a_compiler(module: ModuleType) -> None:
    """DeepSpeed compiles its fused Adam when the first run starts: for minutes, and on GPUs it needs nvcc.

    "torch_adam" is its own switch for torch's AdamW, whose "fused" kernel is precompiled. Adam on the host stays
    DeepSpeed's: it needs only a C++ compiler.
    """
    stock = module.get_train_ds_config
    switches = {"torch_adam": True} if cpu.is_enabled() else {"torch_adam": True, "fused": True}

    def train_config(*args: Any, **kwargs: Any) -> dict[str, Any]:
        config: dict[str, Any] = stock(*args, **kwargs)
        offloaded = config.get("zero_optimization", {}).get("offload_optimizer", {}).get("device") == "cpu"
        optimizer = config.get("optimizer", {})
        if optimizer.get("type") in ("Adam", "AdamW") and not offloaded:
            config["optimizer"] = {**optimizer, "params": {**optimizer["params"], **switches}}
        return config

    module.get_train_ds_config = train_config  # type: ignore[attr-defined]


@after("openrlhf.utils.deepspeed.deepspeed", "DeepspeedStrategy.get_ds_train_config")
def updates_from_all_dynamic_batches(module: ModuleType) -> None:
    """With dynamic batches OpenRLHF tells DeepSpeed that an update follows each backward pass, and calls it only after
    the last one of the update: at ZeRO stages 1 and 2, DeepSpeed 0.19.6 then drops the gradients of all passes before.

    With its own switch it adds up gradients until it is called.
    """
    stock = module.DeepspeedStrategy.get_ds_train_config

    def get_ds_train_config(self: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        config: dict[str, Any] = stock(self, *args, **kwargs)
        return {**config, "managed_gradient_accumulation": False} if self.use_dynamic_batch else config

    module.DeepspeedStrategy.get_ds_train_config = get_ds_train_config
