"""The one episode loop, for training and for evaluation: generate, search, append what was found, go on.

Token ids go in and come out: what the engine sampled is kept as sampled, what the environment adds is tokenized once,
and nothing is decoded to be encoded again.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from r1searcher.episodes import documents
from r1searcher.episodes.protocol import DOCUMENTS, END_ANSWER, STOPS, query_of
from r1searcher.episodes.tokens import Tokenizer
from r1searcher.episodes.trajectory import Author, Search, Segment, StopReason, Trajectory
from r1searcher.errors import InputError, R1Error
from r1searcher.retrieval.base import EpisodeContext, Retriever, bind, search_all


class FinishReason(StrEnum):
    """Why the inference engine stopped a turn."""

    STOP = "stop"
    """Behind one of the protocol's stop strings."""

    EOS = "eos"
    """The model sampled its end-of-sequence token, which is the last of the ids."""

    LENGTH = "length"
    """The turn's budget of new tokens was used up."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One turn as sampled. `logprobs` has an entry for each id, or is None where the engine gave none."""

    token_ids: tuple[int, ...]
    finish: FinishReason
    logprobs: tuple[float, ...] | None = None


class TokenGenerator(Protocol):
    """An inference engine that continues token ids and stops behind any of `protocol.STOPS`."""

    async def generate(self, token_ids: Sequence[int], max_new_tokens: int) -> Generation: ...


@dataclass(frozen=True, slots=True)
class EpisodeLimits:
    """What an episode may spend.

    max_searches: searches run. max_new_tokens: tokens sampled in one turn. max_context: tokens of the whole
    trajectory. top_k: passages asked of the retriever. max_document_words: words shown of each passage.
    """

    max_searches: int = 8
    max_new_tokens: int = 512
    max_context: int = 4096
    top_k: int = 3
    max_document_words: int = 120


def max_prompt_tokens(limits: EpisodeLimits) -> int:
    """Tokens a prompt may have so that a whole turn still fits behind it. A question is never cut."""
    return limits.max_context - min(limits.max_new_tokens, limits.max_context // 2)


async def run_episode(
    question: str,
    gold_answers: Sequence[str],
    prompt: str,
    generator: TokenGenerator,
    retriever: Retriever,
    tokenizer: Tokenizer,
    limits: EpisodeLimits,
    *,
    question_id: str = "",
    step: int | None = None,
) -> Trajectory:
    """Let the model think, search and answer until one of the `StopReason`s holds.

    `question_id` and the training step are for retrievers that ask for the episode.

    Raises `InputError` for a prompt beyond `max_prompt_tokens`, and whatever the retriever or the engine raises: an
    outage ends the episode without a trajectory, never with an empty search.
    """
    prompt_ids = tuple(tokenizer.encode(prompt))
    if len(prompt_ids) > max_prompt_tokens(limits):
        raise InputError(
            f"the prompt of {question[:80]!r} has {len(prompt_ids)} tokens and the episode leaves room for "
            f"{max_prompt_tokens(limits)}: raise episode.max_context or leave the row out"
        )
    segments = [Segment(Author.PROMPT, tokenizer.decode(prompt_ids), prompt_ids)]
    searches: list[Search] = []
    context = list(prompt_ids)

    def finished(stop: StopReason) -> Trajectory:
        return Trajectory(question, tuple(gold_answers), tuple(segments), tuple(searches), stop)

    while True:
        room = limits.max_context - len(context)
        turn_budget = min(limits.max_new_tokens, room)
        generation = await generator.generate(context, turn_budget)
        segment = sampled_segment(generation, tokenizer)
        segments.append(segment)
        context += generation.token_ids

        if generation.finish is FinishReason.LENGTH:
            return finished(
                StopReason.CONTEXT_FULL if turn_budget < limits.max_new_tokens else StopReason.TURN_TRUNCATED
            )
        if generation.finish is FinishReason.EOS:
            return finished(StopReason.EOS_WITHOUT_ANSWER)
        if segment.text_before_stop.endswith(END_ANSWER):
            return finished(StopReason.ANSWERED)
        if segment.text_before_stop.endswith(DOCUMENTS):
            return finished(StopReason.FORGED_DOCUMENTS)

        query = query_of(segment.text_before_stop)
        if query is None:
            return finished(StopReason.MALFORMED_QUERY)
        if len(searches) == limits.max_searches:
            return finished(StopReason.SEARCH_LIMIT)
        episode = EpisodeContext(
            question=question,
            gold_answers=tuple(gold_answers),
            id=question_id,
            step=step,
            search=len(searches) + 1,
        )
        started = time.perf_counter()
        [result] = await search_all(bind(retriever, episode), [query], limits.top_k)
        hits = result.require_hits()
        seconds = time.perf_counter() - started
        # A whole turn must fit behind the documents, or the model reads them and can't say what it found.
        block = documents.fit(
            hits,
            limits.max_document_words,
            limits.max_context - len(context) - limits.max_new_tokens,
            lambda text: len(tokenizer.encode(text)),
            tokenizer.special_tokens,
        )
        searches.append(Search(query, hits, block[1] if block else 0, seconds, result.spans))
        if block is None:
            return finished(StopReason.CONTEXT_FULL)
        block_ids = tuple(tokenizer.encode(block[0]))
        # What is recorded is what the model reads: a tokenizer may normalize or not know a word.
        segments.append(Segment(Author.ENVIRONMENT, tokenizer.decode(block_ids), block_ids))
        context += block_ids


def sampled_segment(generation: Generation, tokenizer: Tokenizer) -> Segment:
    """A turn as recorded: all ids that were sampled, their text, and how much of it lies behind the stop.

    A stop string may end inside the last token, and an end-of-sequence token has a text too; both are sampled and
    trained, and neither is part of what the model said.
    """
    text = tokenizer.decode(generation.token_ids)
    end = len(text)
    if generation.finish is FinishReason.STOP:
        ends = [text.index(stop) + len(stop) for stop in STOPS if stop in text]
        if not ends:
            raise R1Error(f"the engine stopped at a tag that its tokens do not spell: {text[-80:]!r}")
        end = min(ends)
    elif generation.finish is FinishReason.EOS:
        without = tokenizer.decode(generation.token_ids[:-1])
        end = len(without) if text.startswith(without) else len(text)
    return Segment(Author.MODEL, text, generation.token_ids, generation.logprobs, overhang=len(text) - end)
