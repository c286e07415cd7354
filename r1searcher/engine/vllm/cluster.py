"""A model for sampling on a node of a Ray cluster: vLLM in an actor there, tokens here."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from r1searcher.engine.cluster.join import joined, require_node
from r1searcher.engine.vllm.inference import LocalModel
from r1searcher.episodes.loop import Generation
from r1searcher.episodes.tokens import HuggingFaceTokenizer, load_tokenizer
from r1searcher.errors import R1Error


@dataclass(frozen=True, slots=True)
class Sampling:
    temperature: float
    seed: int | None


class Served:
    """In the actor: the model, and one turn at a time from each of many callers."""

    def __init__(self, model: LocalModel) -> None:
        self._model = model

    async def start(self) -> None:
        await self._model.__aenter__()

    async def generate(
        self, token_ids: Sequence[int], max_new_tokens: int, stops: Sequence[str], sampling: Sampling
    ) -> Generation:
        generator = self._model.generator(sampling.temperature, sampling.seed)
        return await generator.generate(token_ids, max_new_tokens, stops)


@dataclass(kw_only=True)
class ClusterModel:
    """What `local` would be here, on a node with its GPUs; use with `async with`, like it.

    `variables` are those that the node's process gets in addition to its own.
    """

    local: LocalModel
    address: str
    variables: Mapping[str, str] = field(default_factory=dict)
    hf_tokenizer: Any = field(init=False)
    """The transformers tokenizer, for chat templates."""

    tokenizer: HuggingFaceTokenizer = field(init=False)
    _actor: Any = field(init=False)
    _stack: AsyncExitStack = field(init=False, default_factory=AsyncExitStack)

    async def __aenter__(self) -> "ClusterModel":
        import ray

        self.hf_tokenizer = load_tokenizer(str(self.local.model), self.local.trust_remote_code)
        self.tokenizer = HuggingFaceTokenizer(self.hf_tokenizer)
        self._stack.enter_context(joined(self.address, self.variables, shows_output=False))
        gpus = self.local.tensor_parallel if self.local.device == "gpu" else 1
        try:
            require_node(gpus)
            self._actor = ray.remote(num_cpus=1, num_gpus=gpus, max_concurrency=10_000)(Served).remote(self.local)
            await _answer(self._actor.start.remote())
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def generator(self, temperature: float, seed: int | None = None) -> "_Remote":
        """A `TokenGenerator` at this temperature, like that of `LocalModel`."""
        return _Remote(self._actor, Sampling(temperature, seed))


@dataclass(frozen=True, slots=True)
class _Remote:
    actor: Any
    sampling: Sampling

    async def generate(self, token_ids: Sequence[int], max_new_tokens: int, stops: Sequence[str]) -> Generation:
        given = (list(token_ids), max_new_tokens, list(stops), self.sampling)
        found: Generation = await _answer(self.actor.generate.remote(*given))
        return found


async def _answer(reference: Any) -> Any:
    """What the actor returns. Raises its own errors, and `R1Error` if it is gone."""
    import ray

    try:
        return await reference
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, R1Error):
            raise type(error.cause)(str(error.cause)) from None
        raise
    except ray.exceptions.RayActorError as error:
        raise R1Error("the node that samples the model has ended: run the same command again to continue") from error
