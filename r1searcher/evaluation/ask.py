"""`r1s ask`: one question, with every turn and document as it arrives."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from rich.text import Text

from r1searcher.common import terminal
from r1searcher.common.http import shown_url
from r1searcher.common.terminal import SafeConsole, outside
from r1searcher.episodes.loop import Generation, TokenGenerator, run_episode
from r1searcher.episodes.tokens import Tokenizer
from r1searcher.episodes.trajectory import StopReason, Trajectory
from r1searcher.evaluation.rollouts import request_maker
from r1searcher.evaluation.target import ModelRequest, find_target, open_engine
from r1searcher.questions.question import Question
from r1searcher.retrieval.base import Retriever, SearchResult
from r1searcher.retrieval.links.base import Link
from r1searcher.rewards.format import answer_of_trajectory
from r1searcher.runs.resolved import retriever_of


@dataclass(frozen=True, kw_only=True)
class AskRequest(ModelRequest):
    """The arguments of `r1s ask`."""

    question: str
    temperature: float = 0.0
    concurrency: int = 1


def run_ask(request: AskRequest) -> None:
    """Run one episode and print its turns and documents as they arrive; the answer goes to standard output."""
    trajectory = asyncio.run(_ask(request, terminal.console(stderr=True)))
    answer = answer_of_trajectory(trajectory)
    if trajectory.stop is StopReason.ANSWERED and answer is not None:
        terminal.console().print(answer.strip(), soft_wrap=True)
    else:
        terminal.console(stderr=True).print(f"no answer: {trajectory.stop.value.replace('_', ' ')}", style="red")


async def _ask(request: AskRequest, console: SafeConsole) -> Trajectory:
    target = find_target(request.model, request.overrides)
    target.require_retriever()
    settings = target.settings
    async with AsyncExitStack() as stack:
        retriever = retriever_of(settings, console.print)
        stack.push_async_callback(retriever.aclose)
        await retriever.health()
        console.print(f"starting {shown_url(target.model)}", style="dim")
        engine = await open_engine(stack, request, target)
        return await run_episode(
            request_maker(settings, engine)(Question("", request.question, ())),
            _PrintingGenerator(engine.generator(request.temperature, settings.seed), engine.tokenizer, console),
            _PrintingRetriever(retriever, settings.episode.max_document_words, console),
            engine.tokenizer,
        )


class _PrintingGenerator:
    """Prints each turn once it is complete."""

    def __init__(self, generator: TokenGenerator, tokenizer: Tokenizer, console: SafeConsole) -> None:
        self._generator, self._tokenizer, self._console = generator, tokenizer, console

    async def generate(self, token_ids: Sequence[int], max_new_tokens: int, stops: Sequence[str]) -> Generation:
        generation = await self._generator.generate(token_ids, max_new_tokens, stops)
        text = self._tokenizer.decode(generation.token_ids).strip()
        self._console.print(outside(text, "bold"), soft_wrap=True)
        return generation


class _PrintingRetriever(Link):
    """Prints what each search found."""

    def __init__(self, retriever: Retriever, words: int, console: SafeConsole) -> None:
        super().__init__(retriever)
        self._words, self._console = words, console

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        results = await super().search(queries, top_k)
        for hits in (result.hits for result in results if result.error is None):
            for number, hit in enumerate(hits, start=1):
                text = " ".join(hit.passage.text.split()[: self._words])
                parts = (
                    outside(f"  {number}. ", "cyan"),
                    outside(hit.passage.title, "italic"),
                    outside(f"  {text}", "dim"),
                )
                self._console.print(Text.assemble(*parts), soft_wrap=True)
            if not hits:
                self._console.print("  nothing found", style="cyan")
        return results
