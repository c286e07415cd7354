"""The episode loop, for training and for evaluation: generate, search, append what was found, continue.

It works on token ids: what the engine sampled is kept as sampled, what the environment adds is tokenized once, and
nothing is decoded and encoded again.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from r1searcher.episodes import documents
from r1searcher.episodes.protocol import EpisodeProtocol, Query
from r1searcher.episodes.tokens import Tokenizer
from r1searcher.episodes.trajectory import Author, Search, Segment, StopReason, Trajectory
from r1searcher.errors import InputError, R1Error
from r1searcher.retrieval.base import EpisodeContext, Retriever, bind, search_all


class FinishReason(StrEnum):
    """Why the inference engine stopped a turn."""

    STOP = "stop"
    """After one of the stop strings."""

    EOS = "eos"
    """The model sampled its end-of-sequence token, which is the last of the ids."""

    LENGTH = "length"
    """The turn's budget of new tokens was used up."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One turn as sampled. `logprobs` has an entry for each id, or is None if the engine gave none."""

    token_ids: tuple[int, ...]
    finish: FinishReason
    logprobs: tuple[float, ...] | None = None


class TokenGenerator(Protocol):
    """An inference engine that continues token ids and stops after any of the stop strings."""

    async def generate(self, token_ids: Sequence[int], max_new_tokens: int, stops: Sequence[str]) -> Generation: ...


@dataclass(frozen=True, slots=True)
class EpisodeLimits:
    """The limits of an episode.

    max_searches: searches run. max_new_tokens: tokens sampled in one turn. max_context: tokens of the whole
    trajectory. top_k: passages asked of the retriever. max_document_words: words shown of each passage.
    """

    max_searches: int = 8
    max_new_tokens: int = 512
    max_context: int = 4096
    top_k: int = 3
    max_document_words: int = 120


def max_prompt_tokens(limits: EpisodeLimits) -> int:
    """The longest prompt, in tokens, after which a full turn still fits. A question is never cut."""
    return limits.max_context - min(limits.max_new_tokens, limits.max_context // 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRequest:
    """One question, and how its episode is run. `prompt` is the question as the model is asked it.

    `id` and the training `step` are for retrievers that ask for the episode.
    """

    question: str
    gold_answers: Sequence[str] = ()
    prompt: str
    protocol: EpisodeProtocol
    limits: EpisodeLimits = EpisodeLimits()
    id: str = ""
    step: int | None = None


class _Record:
    """An episode so far."""

    def __init__(self, request: EpisodeRequest, prompt: Segment) -> None:
        self.request = request
        self.segments: list[Segment] = []
        self.searches: list[Search] = []
        self.context: list[int] = []
        self.add(prompt)

    def add(self, segment: Segment) -> None:
        self.segments.append(segment)
        self.context += segment.token_ids

    @property
    def episode(self) -> EpisodeContext:
        """What the next search is for."""
        request = self.request
        return EpisodeContext(
            question=request.question,
            gold_answers=tuple(request.gold_answers),
            id=request.id,
            step=request.step,
            search=len(self.searches) + 1,
        )

    def finished(self, stop: StopReason) -> Trajectory:
        request = self.request
        return Trajectory(
            request.question,
            tuple(request.gold_answers),
            tuple(self.segments),
            tuple(self.searches),
            stop,
            request.protocol.name,
        )


async def run_episode(
    request: EpisodeRequest, generator: TokenGenerator, retriever: Retriever, tokenizer: Tokenizer
) -> Trajectory:
    """Let the model think, search and answer until one of the `StopReason`s holds.

    Raises `InputError` for a prompt beyond `max_prompt_tokens`, and whatever the retriever or the engine raises: an
    outage ends the episode without a trajectory, never with an empty search.
    """
    limits = request.limits
    record = _Record(request, _prompt_segment(request, tokenizer))
    while True:
        move = await _next_turn(record, generator, tokenizer)
        if isinstance(move, StopReason):
            return record.finished(move)
        if len(record.searches) == limits.max_searches:
            return record.finished(StopReason.SEARCH_LIMIT)
        started = time.perf_counter()
        [result] = await search_all(bind(retriever, record.episode), [move.text], limits.top_k)
        hits = result.require_hits()
        seconds = time.perf_counter() - started
        # A full turn must fit after the documents; otherwise the model reads them and cannot answer.
        left = limits.max_context - len(record.context) - limits.max_new_tokens
        block = documents.fit(hits, request.protocol, tokenizer, limits.max_document_words, left)
        record.searches.append(Search(move.text, hits, block[1] if block else 0, seconds, result.spans))
        if block is None:
            return record.finished(StopReason.CONTEXT_FULL)
        block_ids = tuple(tokenizer.encode(block[0]))
        # What is recorded is what the model reads: a tokenizer may normalize or not know a word.
        record.add(Segment(Author.ENVIRONMENT, tokenizer.decode(block_ids), block_ids))


def _prompt_segment(request: EpisodeRequest, tokenizer: Tokenizer) -> Segment:
    prompt_ids = tuple(tokenizer.encode(request.prompt))
    if len(prompt_ids) > max_prompt_tokens(request.limits):
        raise InputError(
            f"the prompt of {request.question[:80]!r} has {len(prompt_ids)} tokens and the episode allows "
            f"{max_prompt_tokens(request.limits)}: raise episode.max_context or remove the row"
        )
    return Segment(Author.PROMPT, tokenizer.decode(prompt_ids), prompt_ids)


async def _next_turn(record: _Record, generator: TokenGenerator, tokenizer: Tokenizer) -> Query | StopReason:
    """Sample and record a turn; the search that it asks for, or why the episode ends with it."""
    limits, protocol = record.request.limits, record.request.protocol
    budget = min(limits.max_new_tokens, limits.max_context - len(record.context))
    generation = await generator.generate(record.context, budget, protocol.stop_strings)
    segment = sampled_segment(generation, tokenizer, protocol.stop_strings)
    record.add(segment)
    if generation.finish is FinishReason.LENGTH:
        return StopReason.CONTEXT_FULL if budget < limits.max_new_tokens else StopReason.TURN_TRUNCATED
    return protocol.read_turn(segment.text_before_stop, ended=generation.finish is FinishReason.EOS)


def sampled_segment(generation: Generation, tokenizer: Tokenizer, stop_strings: Sequence[str]) -> Segment:
    """A turn as recorded: all ids that were sampled, their text, and how much of it comes after the stop.

    A stop string may end inside the last token, and an end-of-sequence token has a text too; both are sampled and
    trained, and neither is part of what the model said.
    """
    text = tokenizer.decode(generation.token_ids)
    end = len(text)
    if generation.finish is FinishReason.STOP:
        ends = [text.index(stop) + len(stop) for stop in stop_strings if stop in text]
        if not ends:
            raise R1Error(f"the engine stopped at a tag that its tokens do not spell: {text[-80:]!r}")
        end = min(ends)
    elif generation.finish is FinishReason.EOS:
        without = tokenizer.decode(generation.token_ids[:-1])
        end = len(without) if text.startswith(without) else len(text)
    return Segment(Author.MODEL, text, generation.token_ids, generation.logprobs, overhang=len(text) - end)
