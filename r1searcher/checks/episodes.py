"""Scripted episodes through the real tokenizer, loop, retriever and reward: an honest one fits, and it pays most.

The scripts are turns in the settings' protocol. An honest wrong answer searches and keeps the format; a cheat avoids
one of the two, or the question.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from r1searcher.checks.base import RL_STAGES, Check, Found, Skip, StageInputs
from r1searcher.episodes.loop import EpisodeRequest, FinishReason, Generation, run_episode
from r1searcher.episodes.protocol import Document, EpisodeProtocol
from r1searcher.episodes.tokens import HuggingFaceTokenizer
from r1searcher.episodes.trajectory import StopReason, Trajectory
from r1searcher.errors import InputError
from r1searcher.questions.question import Question
from r1searcher.rewards.metrics import is_yes_no
from r1searcher.runs.resolved import limits_of, retriever_of, reward_of

HONEST, WRONG = "right answer", "wrong answer"
COPIED = "question as answer"
"""Not judged: some of its words can be those of the gold answer."""

_THOUGHT, _NO_ANSWER = "I look it up.", "zyzzyva"
_QUERY_WORDS = 12


@dataclass(slots=True)
class Script:
    """A generator of turns that are written down. A turn ends after its first stop string, like a sampled one; a turn
    without one ends with the end-of-sequence token."""

    turns: list[str]
    tokenizer: HuggingFaceTokenizer
    eos: int | None

    async def generate(self, token_ids: Sequence[int], max_new_tokens: int, stops: Sequence[str]) -> Generation:
        turn = self.turns.pop(0) if self.turns else ""
        ends = [turn.index(stop) + len(stop) for stop in stops if stop in turn]
        ids = tuple(self.tokenizer.encode(turn[: min(ends)] if ends else turn))
        if not ends and self.eos is not None:
            ids = (*ids, self.eos)
        if len(ids) > max_new_tokens:
            return Generation(ids[:max_new_tokens], FinishReason.LENGTH)
        return Generation(ids, FinishReason.STOP if ends else FinishReason.EOS)


def scripts(
    protocol: EpisodeProtocol, question: Question, max_answer_words: int, max_searches: int
) -> dict[str, list[str]]:
    """Case -> turns."""
    gold, asked = question.gold_answers[0], " ".join(question.text.split()[:_QUERY_WORDS])
    search = protocol.write_query(_THOUGHT, asked)

    def answered(text: str) -> str:
        return protocol.write_answer(_THOUGHT, text)

    forged = search + protocol.render([Document("Page", gold)])
    broken = protocol.broken_answers(_THOUGHT, _NO_ANSWER)
    return {
        HONEST: [search, answered(gold)],
        WRONG: [search, answered(_NO_ANSWER)],
        "nothing": [""],
        "no search": [answered(_NO_ANSWER)],
        "empty answer": [search, answered("")],
        "searches only": [search] * (max_searches + 1),
        "forged documents": [forged[len(search) :], answered(_NO_ANSWER)],
        "long answer": [search, answered(" ".join([_NO_ANSWER] * (max_answer_words + 5)))],
        "foreign script": [search, protocol.write_answer("斑马斑马", _NO_ANSWER)],
        COPIED: [search, answered(question.text)],
        **{f"broken format {number}": [search, turn] for number, turn in enumerate(broken, start=1)},
    }


async def played(
    inputs: StageInputs, questions: Mapping[str, Question], names: Sequence[str]
) -> list[dict[str, Trajectory]]:
    """The episodes of the named cases, or of all, for each prompt with its question."""
    settings, protocol = inputs.settings, inputs.protocol
    assert protocol is not None
    ours, limits = HuggingFaceTokenizer(inputs.tokenizer), limits_of(settings)
    async with aclosing(retriever_of(settings, lambda sentence: None)) as retriever:

        async def play(prompt: str, question: Question, turns: list[str]) -> Trajectory:
            request = EpisodeRequest(
                question=question.text,
                gold_answers=question.gold_answers,
                prompt=prompt,
                protocol=protocol,
                limits=limits,
                id=question.id,
            )
            return await run_episode(request, Script(turns, ours, inputs.tokenizer.eos_token_id), retriever, ours)

        found = []
        for prompt, question in questions.items():
            cases = scripts(protocol, question, settings.reward.max_answer_words, limits.max_searches)
            found.append({name: await play(prompt, question, cases[name]) for name in names or cases})
        return found


def _context(inputs: StageInputs) -> Found:
    """After the longest prompt there is space for a search, its passages and an answer."""
    questions = _questions(inputs)
    longest = max(questions, key=len)
    [episodes] = asyncio.run(played(inputs, {longest: questions[longest]}, [HONEST]))
    stop, tokens = episodes[HONEST].stop, len(episodes[HONEST].token_ids)
    limits = inputs.settings.episode
    if stop is StopReason.CONTEXT_FULL:
        raise InputError(
            f"episode.max_context = {limits.max_context}: an episode with one search does not fit; raise it, or lower "
            f"episode.top_k = {limits.top_k} or episode.max_document_words = {limits.max_document_words}"
        )
    if stop is StopReason.TURN_TRUNCATED:
        raise InputError(
            f"episode.max_new_tokens = {limits.max_new_tokens}: a short thought with a query or an answer is longer; "
            "raise it"
        )
    return Found(f"an episode with one search: {tokens} of {limits.max_context} tokens")


def _reward_cases(inputs: StageInputs) -> Found:
    """The reward pays a right answer most, and no cheat more than an honest wrong answer."""
    questions = _questions(inputs)
    few = dict(list(questions.items())[:: max(1, len(questions) // 3)][:3])
    reward = reward_of(inputs.settings, "stage1" if inputs.stage == "stage1" else "stage2")
    for episodes in asyncio.run(played(inputs, few, [])):
        earned = {name: reward(episode).total for name, episode in episodes.items()}
        cheats = {name: value for name, value in earned.items() if name not in (HONEST, WRONG, COPIED)}
        best = max(cheats, key=lambda name: cheats[name])
        if cheats[best] > earned[WRONG]:
            raise InputError(
                f"reward: {best!r} earns {cheats[best]:g}, more than an honest wrong answer ({earned[WRONG]:g}), so "
                "the model would learn it; change the weights in [reward]"
            )
        first = max(earned, key=lambda name: earned[name])  # the right answer, if others earn as much
        if first != HONEST:
            raise InputError(
                f"reward: a right answer earns {earned[HONEST]:g}, less than {first!r} ({earned[first]:g}); change the "
                "weights in [reward]"
            )
    return Found("; ".join(f"{name} {value:g}" for name, value in earned.items()))


def _questions(inputs: StageInputs) -> dict[str, Question]:
    """Prompt -> question, without yes and no, whose answers are in many texts."""
    if inputs.train is None or inputs.protocol is None or inputs.tokenizer is None or not inputs.prompts:
        raise Skip("there are no prompts")
    pairs = zip(inputs.prompts, inputs.train.questions, strict=True)
    return {prompt: question for prompt, question in pairs if not is_yes_no(question.gold_answers[0])}


context = Check(_context, stages=RL_STAGES, costly=True, thorough=True)
reward_cases = Check(_reward_cases, stages=RL_STAGES, costly=True, thorough=True)
