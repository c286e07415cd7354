"""Many episodes at once, around the real loop."""

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from r1searcher.config.settings import load
from r1searcher.episodes.loop import EpisodeLimits, EpisodeRequest, Generation
from r1searcher.episodes.protocols.r1_searcher import R1_SEARCHER
from r1searcher.errors import RetrieverError
from r1searcher.evaluation.rollouts import RolloutRequest, roll_out, roll_out_model, rollout_requests
from r1searcher.questions.question import Question
from tests.common.servers import answer, raw_server
from tests.episodes.conftest import END, byte_level_bpe
from tests.episodes.scripted import GivenPassages, ScriptedModel

TURNS = ("<|begin_of_query|> river<|end_of_query|>", "So. </think> <answer> Arden </answer>")
QUESTIONS = [Question(str(number), f"Which river is number {number}?", ("Arden",)) for number in range(12)]


class Engine:
    """An engine of scripted models that knows how many episodes wait for it at once."""

    def __init__(self) -> None:
        self.tokenizer = byte_level_bpe(reserved_tags=True)
        self.hf_tokenizer = self.tokenizer._tokenizer
        self.at_once = self.most_at_once = 0

    def generator(self, temperature: float, seed: int | None = None) -> Any:
        engine, model = self, ScriptedModel(self.tokenizer, TURNS, self.tokenizer.encode(END)[0])

        class Counting:
            async def generate(self, token_ids: Sequence[int], max_new_tokens: int, stops: Sequence[str]) -> Generation:
                engine.at_once += 1
                engine.most_at_once = max(engine.most_at_once, engine.at_once)
                await asyncio.sleep(0)
                engine.at_once -= 1
                return await model.generate(token_ids, max_new_tokens, stops)

        return Counting()


class FailsFor(GivenPassages):
    """Passages for every search but the third, which finds the engine down."""

    async def search(self, queries: Sequence[str], top_k: int) -> Any:
        if len(self.queries) == 2:
            raise RetrieverError("down")
        return await super().search(queries, top_k)


def request(question: Question) -> EpisodeRequest:
    return EpisodeRequest(
        question=question.text,
        gold_answers=question.gold_answers,
        prompt=f"{question.text}<think>",
        protocol=R1_SEARCHER,
        limits=EpisodeLimits(max_new_tokens=64),
    )


async def run_all(engine: Engine, retriever: GivenPassages, tasks: list[RolloutRequest], concurrency: int) -> list[Any]:
    return [one async for one in roll_out(tasks, engine, retriever, request, concurrency)]


@pytest.mark.parametrize("concurrency", [1, 5, 64])
async def test_every_task_is_found_once_and_no_more_at_once_than_allowed(concurrency: int) -> None:
    engine = Engine()
    tasks = rollout_requests(QUESTIONS, samples=2)
    found = await run_all(engine, GivenPassages(["It lies on the Arden."]), tasks, concurrency)
    assert sorted((t.index, t.sample) for t, _, _ in found) == [(t.index, t.sample) for t in tasks]
    assert all(len(trajectory.searches) == 1 for _, trajectory, _ in found)
    assert engine.most_at_once == min(concurrency, len(tasks))


async def test_an_outage_ends_the_rollouts_and_is_no_trajectory() -> None:
    whole = []

    async def collect() -> None:
        tasks = rollout_requests(QUESTIONS)
        async for task, trajectory, _ in roll_out(tasks, Engine(), FailsFor(["Arden"]), request, 1):
            whole.append((task.index, trajectory.stop.value))

    with pytest.raises(RetrieverError):
        await collect()
    assert whole == [(0, "answered"), (1, "answered")]


def test_held_out_rollouts_wait_out_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search engine refuses the first searches, as one that is starting does: no episode is lost."""

    class Local(Engine):
        def __init__(self, *_: Any, **__: Any) -> None:
            super().__init__()

        async def __aenter__(self) -> "Local":
            return self

        async def __aexit__(self, *_: object) -> None: ...

    def behave(connection: socket.socket, request: bytes) -> None:
        found = b'{"result": [[{"id": "1", "title": "T", "text": "It lies on the Arden."}]]}'
        (answer(b"", "503 Starting") if len(server.requests) < 4 else answer(found))(connection, request)

    monkeypatch.setattr("r1searcher.engine.vllm.inference.LocalModel", Local)
    said: list[str] = []
    with raw_server(behave) as server:
        changes = {"retrieval.url": f"{server.url}/retrieve", "model.chat_template": False}
        settings = load("stage2", None, None, changes)
        found = roll_out_model("model", QUESTIONS[:2], settings, temperatures=(0.0,), notify=said.append)
    assert [trajectory.stop.value for trajectory in found[0.0]] == ["answered"] * 2
    assert all(len(trajectory.searches[0].hits) == 1 for trajectory in found[0.0])
    assert ["waiting" in sentence for sentence in said] == [True, False]


def test_seeds_differ_between_samples_and_repeat_between_calls() -> None:
    tasks = rollout_requests(QUESTIONS, 1.0, samples=3, seed=7)
    assert len({task.seed for task in tasks}) == 36
    assert tasks == rollout_requests(QUESTIONS, 1.0, samples=3, seed=7)
    assert not {task.seed for task in tasks} & {task.seed for task in rollout_requests(QUESTIONS, 1.0, 3, seed=8)}
