"""OpenRLHF on a machine without a GPU: names replaced after import, each with its reason, no installed file edited."""

import ctypes
import importlib
import os
import re
import socket
from datetime import timedelta
from types import ModuleType
from typing import Any
from unittest import mock

from r1searcher.engine.cpu import CpuSettings
from r1searcher.engine.import_patches import Patch, after_import
from r1searcher.errors import InputError

PATCHES: list[Patch] = []

after = after_import(PATCHES)


@after("openrlhf")
def torch_cuda_without_a_gpu(_openrlhf: ModuleType) -> None:
    """OpenRLHF calls these four without asking for a GPU first; they raise without one.

    `current_device()` is only used as the target of `.to()`. They cannot be replaced after the import of `torch.cuda`
    itself, which torch imports during its own import.
    """
    import torch

    cpu = torch.device("cpu")
    torch.cuda.current_device = lambda: cpu
    for name in ("set_device", "synchronize", "current_stream"):
        setattr(torch.cuda, name, lambda *_: None)


@after("openrlhf.utils.deepspeed.deepspeed", "init_device_mesh", "get_train_ds_config", "get_eval_ds_config")
def deepspeed_on_cpu(module: ModuleType) -> None:
    """The mesh's device is the literal "cuda", and the precision can only be bf16 or fp16.

    DeepSpeed's shared-memory collectives would be compiled for minutes on the first run: an op marked incompatible
    falls back to gloo.
    """
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    mesh, train, evaluate = module.init_device_mesh, module.get_train_ds_config, module.get_eval_ds_config
    half = CpuSettings.from_env().precision == "bf16"

    def with_precision(config: dict[str, Any]) -> dict[str, Any]:
        return config if half else {**config, "bf16": {"enabled": False}, "fp16": {"enabled": False}}

    module.init_device_mesh = lambda _device, *args, **kwargs: mesh("cpu", *args, **kwargs)  # type: ignore[attr-defined]
    module.get_train_ds_config = lambda *a, **k: with_precision(train(*a, **k))  # type: ignore[attr-defined]
    module.get_eval_ds_config = lambda *a, **k: with_precision(evaluate(*a, **k))  # type: ignore[attr-defined]


@after("openrlhf.utils.utils", "convert_to_torch_dtype")
def weights_in_fp32(module: ModuleType) -> None:
    """The command line accepts only bf16 and fp16, and Adam's small updates are lost on bf16 weights."""
    import torch

    if CpuSettings.from_env().precision != "bf16":
        module.convert_to_torch_dtype = lambda _param_dtype: torch.float32  # type: ignore[attr-defined]


@after("openrlhf.trainer.ray.vllm_engine", "vllm.AsyncEngineArgs")
def vllm_in_fp32(module: ModuleType) -> None:
    """The sampler's dtype is the literal "bfloat16"."""
    if CpuSettings.from_env().precision == "fp32":
        stock = module.vllm.AsyncEngineArgs
        module.vllm.AsyncEngineArgs = lambda *args, **kwargs: stock(*args, **{**kwargs, "dtype": "float32"})


@after("openrlhf.trainer.ppo_utils.replay_buffer", "NaiveReplayBuffer.__init__")
def replay_buffer_on_cpu(module: ModuleType) -> None:
    """Its device is f"cuda:{current_device()}"."""
    import torch

    stock = module.NaiveReplayBuffer.__init__

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        with mock.patch.object(torch.cuda, "current_device", return_value=0):
            stock(self, *args, **kwargs)
        self.target_device = torch.device("cpu")

    module.NaiveReplayBuffer.__init__ = __init__


def _store(address: str, port: int, rank: int, world_size: int, timeout: timedelta) -> Any:
    """A TCP store for rendezvous, listening only on `address`; torch's own listens on every interface."""
    dist: Any = importlib.import_module("torch.distributed")
    listening = socket.create_server((address, port)).detach() if rank == 0 else None
    return dist.TCPStore(address, port, world_size, is_master=rank == 0, timeout=timeout, master_listen_fd=listening)


@after("openrlhf.utils.deepspeed.deepspeed", "deepspeed.init_distributed")
def trainers_meet_on_one_interface(module: ModuleType) -> None:
    """DeepSpeed lets torch open the rendezvous store of the trainer's processes on every interface."""
    stock = module.deepspeed.init_distributed

    def init_distributed(*args: Any, timeout: timedelta = timedelta(minutes=60), **kwargs: Any) -> None:
        dist: Any = importlib.import_module("torch.distributed")
        if not dist.is_initialized():
            rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
            store = _store(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), rank, world_size, timeout)
            dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size, timeout=timeout)
        stock(*args, timeout=timeout, **kwargs)  # uses the initialized process group

    module.deepspeed.init_distributed = init_distributed


@after("deepspeed.comm.torch", "TorchBackend.all_gather_into_tensor")
def gathered_weights_are_complete(module: ModuleType) -> None:
    """ZeRO-3 gathers the weights of a layer together and waits for the last of them alone.

    On GPUs they are gathered in order. gloo has several threads: a weight that is written to before it is gathered, as
    when a model is loaded, would then be overwritten with what was there before.
    """
    stock = module.TorchBackend.all_gather_into_tensor

    def all_gather_into_tensor(*args: Any, **kwargs: Any) -> Any:
        handle = stock(*args, **kwargs)
        if handle is not None:
            handle.wait()
        return handle

    module.TorchBackend.all_gather_into_tensor = all_gather_into_tensor


class _GlooBroadcast:
    """The only method of the NCCL communicator that OpenRLHF uses, over gloo."""

    def __init__(self, address: str, port: int, rank: int, world_size: int) -> None:
        self.dist: Any = importlib.import_module("torch.distributed")
        timeout = timedelta(minutes=10)
        self.store = _store(address, port, rank, world_size, timeout)
        prefixed = self.dist.PrefixStore("r1searcher_weights", self.store)
        self.group = self.dist.ProcessGroupGloo(prefixed, rank, world_size, timeout)

    def broadcast(self, tensor: Any, src: int, stream: object = None) -> None:
        options = self.dist.BroadcastOptions()
        options.rootRank, options.rootTensor = src, 0
        self.group.broadcast([tensor], options).wait()


@after("openrlhf.utils.distributed_util", "stateless_init_process_group")
def weight_sync_over_gloo(module: ModuleType) -> None:
    """Weights are sent from the trainer to vLLM through NCCL, regardless of --vllm.sync_backend."""
    module.stateless_init_process_group = (  # type: ignore[attr-defined]
        lambda address, port, rank, world_size, _device: _GlooBroadcast(address, port, rank, world_size)
    )


@after("openrlhf.trainer.ray.vllm_worker_wrap", "WorkerWrap.update_weight")
def receive_weights_on_cpu(module: ModuleType) -> None:
    """The buffer for a weight is made on "cuda", and its dtype must be vLLM's (mixed sends fp32 into bf16)."""
    import torch

    def update_weight(self: Any, name: str, dtype: Any, shape: Any, empty_cache: bool = False) -> None:
        weight = torch.empty(shape, dtype=dtype)
        self._model_update_group.broadcast(weight, src=0)
        self.model_runner.model.load_weights(weights=[(name, weight)])

    module.WorkerWrap.update_weight = update_weight


@after("openrlhf.models.actor", "Actor.__init__", "Actor.forward")
def actor_on_cpu(module: ModuleType) -> None:
    """bf16 arithmetic on fp32 weights, no backward pass into frozen layers, and an attention that runs on a CPU.

    OpenRLHF replaces the attention of packed samples by flash attention, which needs a GPU; with the others too,
    transformers keeps packed samples apart by their positions.
    """
    import torch

    settings = CpuSettings.from_env()
    init, stock_forward = module.Actor.__init__, module.Actor.forward

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        init(self, *args, **{**kwargs, "attn_implementation": settings.attention})
        if settings.freeze_lower_layers:
            freeze_lower_layers(self.model, settings.freeze_lower_layers)

    def forward(self: Any, *args: Any, **options: Any) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=settings.precision == "mixed"):
            return stock_forward(self, *args, **options)

    module.Actor.__init__, module.Actor.forward = __init__, forward


@after("openrlhf.trainer.ray.ppo_actor", "ActorPPOTrainer.ppo_train")
def memory_is_returned_after_training(module: ModuleType) -> None:
    """glibc keeps the memory that a step's training has freed, in pieces, and with each step more of it."""
    stock = module.ActorPPOTrainer.ppo_train

    def ppo_train(self: Any, *args: Any, **options: Any) -> Any:
        status = stock(self, *args, **options)
        ctypes.CDLL(None).malloc_trim(0)
        return status

    module.ActorPPOTrainer.ppo_train = ppo_train


@after("openrlhf.trainer.ray.ppo_critic", "get_llm_for_sequence_regression")
def critic_on_cpu(module: ModuleType) -> None:
    """The attention of a critic of packed samples is replaced like that of the policy."""
    stock, attention = module.get_llm_for_sequence_regression, CpuSettings.from_env().attention
    module.get_llm_for_sequence_regression = (  # type: ignore[attr-defined]
        lambda *args, **kwargs: stock(*args, **{**kwargs, "attn_implementation": attention})
    )


def freeze_lower_layers(network: Any, layers: int) -> None:
    """Disable gradients of the embeddings (and a head tied to them) and of the lowest `layers` layers."""
    found = {
        int(match[1]) for name, _ in network.named_parameters() if (match := re.search(r"\.layers\.(\d+)\.", name))
    }
    if layers >= len(found):
        raise InputError(
            f"engine.freeze_lower_layers = {layers} leaves nothing to train of a model with {len(found)} layers"
        )
    frozen = {id(parameter) for parameter in network.get_input_embeddings().parameters()}
    for name, parameter in network.named_parameters():
        layer = re.search(r"\.layers\.(\d+)\.", name)
        if id(parameter) in frozen or (layer and int(layer[1]) < layers):
            parameter.requires_grad_(False)
