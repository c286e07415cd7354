"""Many episodes at the same time, through the same loop as in training."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1searcher.common.terminal import error_line
from r1searcher.config.settings import Settings
from r1searcher.episodes.loop import EpisodeRequest, run_episode
from r1searcher.episodes.trajectory import Trajectory
from r1searcher.evaluation.engines import InferenceEngine
from r1searcher.questions.question import Question
from r1searcher.retrieval.base import Retriever
from r1searcher.runs.resolved import limits_of, prompt_maker_of, protocol_of, retriever_of


@dataclass(frozen=True, slots=True)
class RolloutRequest:
    """One episode to run: sample number `sample` of question number `index`, at a temperature (0: greedy)."""

    index: int
    question: Question
    temperature: float = 0.0
    sample: int = 0
    seed: int = 7
    dataset: str = ""


async def roll_out(
    tasks: Iterable[RolloutRequest],
    engine: InferenceEngine,
    retriever: Retriever,
    make_request: Callable[[Question], EpisodeRequest],
    concurrency: int = 64,
) -> AsyncGenerator[tuple[RolloutRequest, Trajectory, float], None]:
    """Run all tasks, at most `concurrency` at a time, and yield each with its seconds as it ends, in any order.

    A task is taken from `tasks` only when there is room for it.

    The first failure ends everything: what was yielded before is complete, and episodes that are running are canceled.
    """
    waiting = iter(tasks)
    running: set[asyncio.Task[tuple[RolloutRequest, Trajectory, float]]] = set()

    async def run(task: RolloutRequest) -> tuple[RolloutRequest, Trajectory, float]:
        started = time.perf_counter()
        trajectory = await run_episode(
            make_request(task.question),
            engine.generator(task.temperature, task.seed),
            retriever,
            engine.tokenizer,
        )
        return task, trajectory, time.perf_counter() - started

    try:
        while True:
            for task in waiting:
                running.add(asyncio.create_task(run(task)))
                if len(running) == concurrency:
                    break
            if not running:
                return
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for finished in sorted(done, key=lambda task: task.exception() is not None):  # failures last
                yield finished.result()
    finally:
        for unfinished in running:
            unfinished.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def rollout_requests(
    questions: Iterable[Question], temperature: float = 0.0, samples: int = 1, seed: int = 7, dataset: str = ""
) -> list[RolloutRequest]:
    """`samples` tasks per question, each with its own seed, which depends only on its index and its sample."""
    return [
        RolloutRequest(index, question, temperature, sample, seed * 1_000_003 + index * 1_009 + sample, dataset)
        for index, question in enumerate(questions)
        for sample in range(samples)
    ]


def roll_out_model(
    model: Path | str,
    questions: Sequence[Question],
    settings: Settings,
    *,
    temperatures: Sequence[float] = (1.0, 0.0),
    finished: Callable[[RolloutRequest, Trajectory], None] = lambda _task, _trajectory: None,
    concurrency: int = 64,
    notify: Callable[[str], None] = error_line,
) -> dict[float, list[Trajectory]]:
    """Trajectories of a Hugging Face folder on `questions`, in their order, for each temperature; one engine start.

    Protocol, prompt, limits, retriever and seed come from `settings`. `finished` is called with each episode as it
    ends, `notify` when the retriever is down and when it is back.
    """
    tasks = [task for t in temperatures for task in rollout_requests(questions, t, seed=settings.seed)]
    opened = sampled_model(model, settings, concurrency, gpu_memory_utilization=settings.engine.gpu_memory_utilization)

    async def run() -> dict[RolloutRequest, Trajectory]:
        found: dict[RolloutRequest, Trajectory] = {}
        async with aclosing(retriever_of(settings, notify)) as retriever, opened as engine:
            make_request = request_maker(settings, engine)
            async with aclosing(roll_out(tasks, engine, retriever, make_request, concurrency)) as rollouts:
                async for task, trajectory, _ in rollouts:
                    found[task] = trajectory
                    finished(task, trajectory)
        return found

    found = asyncio.run(run())
    return {t: [found[task] for task in tasks if task.temperature == t] for t in temperatures}


def sampled_model(
    model: Path | str, settings: Settings, concurrency: int, **more: Any
) -> AbstractAsyncContextManager[InferenceEngine]:
    """vLLM for a Hugging Face folder, with the dtype of the rollouts in training: in this process, or on the cluster of
    the settings. `more` are further fields of `LocalModel`."""
    from r1searcher.engine.cluster.address import cluster_address
    from r1searcher.engine.topology import device_of
    from r1searcher.engine.vllm.cluster import ClusterModel
    from r1searcher.engine.vllm.inference import LocalModel

    local = LocalModel(
        model=model,
        max_context=settings.episode.max_context,
        device=device_of(settings),
        concurrency=concurrency,
        dtype="float32" if settings.engine.precision == "fp32" else "bfloat16",
        trust_remote_code=settings.model.trust_remote_code,
        tensor_parallel=settings.engine.tensor_parallel,
        **more,
    )
    cluster = cluster_address(settings)
    return ClusterModel(local=local, address=cluster) if cluster else local


def request_maker(settings: Settings, engine: InferenceEngine) -> Callable[[Question], EpisodeRequest]:
    """Questions to episodes, with the protocol, prompt and limits that the model was trained with."""
    protocol, limits = protocol_of(settings), limits_of(settings)
    make_prompt = prompt_maker_of(settings, engine.hf_tokenizer, engine.tokenizer.special_tokens)

    def request(question: Question) -> EpisodeRequest:
        return EpisodeRequest(
            question=question.text,
            gold_answers=question.gold_answers,
            prompt=make_prompt(question.text),
            protocol=protocol,
            limits=limits,
            id=question.id,
        )

    return request
