"""A model in this process, run by vLLM, for sampling without training."""

import logging
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from r1searcher.engine import cpu
from r1searcher.engine.cuda import use_packaged_toolkit
from r1searcher.engine.topology import Device
from r1searcher.engine.vllm.generator import VllmGenerator
from r1searcher.episodes.tokens import HuggingFaceTokenizer
from r1searcher.errors import InputError


@dataclass(kw_only=True)
class LocalModel:
    """An asynchronous vLLM engine and its tokenizer; use with `async with`, on one event loop.

    vLLM is imported when the block is entered, and keeps its memory until the process ends: code that samples a model
    once and then does other work should do so in a separate process.
    """

    model: Path | str
    """A Hugging Face folder or name."""

    max_context: int
    """The longest trajectory, in tokens."""

    device: Device

    concurrency: int = 64
    """Episodes that the engine batches; with 1, greedy tokens are the same in every repetition."""

    dtype: str = "bfloat16"
    seed: int = 0
    trust_remote_code: bool = False
    gpu_memory_utilization: float = 0.9
    """Share of a GPU's memory for vLLM."""

    tensor_parallel: int = 1
    """GPUs that hold the model together; without GPUs it is one process."""

    tokenizer: HuggingFaceTokenizer = field(init=False)

    def _arguments(self) -> dict[str, Any]:
        """The arguments of vLLM."""
        arguments: dict[str, Any] = {
            "model": str(self.model),
            "max_model_len": self.max_context,
            "max_num_seqs": self.concurrency,
            "dtype": self.dtype,
            "seed": self.seed,
            "trust_remote_code": self.trust_remote_code,
            # A turn's context is the turn before and its documents. One at a time, tokens must depend only on their
            # context: a cached prefix changes the last bits of what is computed after it.
            "enable_prefix_caching": self.concurrency > 1,
        }
        if self.device == "gpu":
            return {
                **arguments,
                "gpu_memory_utilization": self.gpu_memory_utilization,
                "tensor_parallel_size": self.tensor_parallel,
            }
        return {
            **arguments,
            "enforce_eager": True,
            # A prompt cut in two by the batch's budget rewinds its request's seeded generator, which no CPU
            # generator can: "CPU Generator does not use offset".
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(2048, self.max_context),
        }

    async def __aenter__(self) -> "LocalModel":
        if self.device == "cpu":
            os.environ.update({**cpu.ENVIRONMENT, "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))})
        else:
            use_packaged_toolkit()
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        logging.getLogger("vllm").setLevel(logging.ERROR)
        try:
            import vllm
        except ImportError as error:
            raise InputError(
                f"sampling a model here needs vLLM ({error}): run `scripts/install-training cpu` (or gpu) and use the "
                "r1s of its environment, or give the URL of a server"
            ) from None
        try:
            self._engine = vllm.AsyncLLMEngine.from_engine_args(vllm.AsyncEngineArgs(**self._arguments()))
        except (OSError, ValueError) as error:
            raise InputError(f"vLLM can't load {str(self.model)!r}: {str(error).splitlines()[0]}") from error
        self.tokenizer = HuggingFaceTokenizer(self.hf_tokenizer)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._engine.shutdown()

    @property
    def hf_tokenizer(self) -> Any:
        """The transformers tokenizer, for chat templates."""
        return self._engine.get_tokenizer()

    def generator(self, temperature: float, seed: int | None = None, logprobs: bool = False) -> VllmGenerator:
        """A `TokenGenerator` at this temperature. The same `seed` draws the same turns of an episode."""
        from vllm import SamplingParams

        sampling = SamplingParams(temperature=temperature, min_tokens=1, seed=seed, logprobs=1 if logprobs else None)
        return VllmGenerator(self._generate, sampling)

    async def _generate(self, token_ids: list[int], sampling: Any) -> Any:
        final = None
        async for output in self._engine.generate(
            {"prompt_token_ids": token_ids}, sampling, request_id=uuid.uuid4().hex
        ):
            final = output
        return final
