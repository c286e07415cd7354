"""Whether the retriever answers, and whether its corpus belongs to the questions."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from statistics import median

from r1searcher.checks.base import RL_STAGES, Check, Found, Skip, StageInputs, require_setting
from r1searcher.errors import InputError
from r1searcher.evaluation.recall import first_rank
from r1searcher.questions.question import Question
from r1searcher.retrieval.base import EpisodeContext, Hit, Retriever, bind, hits_of
from r1searcher.retrieval.probe import probed
from r1searcher.rewards.metrics import is_yes_no

DEPTH = 10
"""Passages per search."""

FEWEST = 8
"""Questions from which it is an error that no search found an answer; with fewer it can be chance."""

LOW_RECALL, LOW_TITLES = 0.1, 0.5
"""Shares below which there is a warning."""


def _retriever(inputs: StageInputs) -> None:
    """The retriever responds to a query."""
    retrieval = inputs.settings.retrieval
    require_setting("retrieval.url", retrieval.url or retrieval.kind, "an index folder or a search engine's URL")
    inputs.health = asyncio.run(probed(retrieval.engine, first_episode(inputs)))


def _corpus(inputs: StageInputs) -> Found:
    """Searches for some questions find passages with their answers, and searches for titles find their passages."""
    if inputs.train is None or not inputs.train.questions or inputs.health is None:
        raise Skip("there are no questions, or the retriever was not reached")
    open_questions = [q for q in inputs.train.questions if not is_yes_no(q.gold_answers[0])]
    most = max(1, inputs.queries * 3 // 5)
    step = max(1, len(open_questions) // most)
    return asyncio.run(_searched(inputs, open_questions[::step][:most]))


async def _searched(inputs: StageInputs, questions: Sequence[Question]) -> Found:
    url = inputs.settings.retrieval.url or inputs.settings.retrieval.kind
    async with aclosing(inputs.settings.retrieval.engine.open()) as retriever:
        answers = await asyncio.gather(*(_timed(retriever, question, question.text) for question in questions))
        titles = {hit.passage.title: hit.passage.id for hits, _ in answers for hit in hits[:1] if hit.passage.title}
        asked = list(titles)[: inputs.queries - len(questions)]
        by_title = await asyncio.gather(*(_timed(retriever, questions[0], title) for title in asked))
    if not any(hits for hits, _ in answers):
        raise InputError(
            f"retrieval.url = {url}: no passage was found for any of {len(questions)} questions; is it empty?"
        )
    ranks = [first_rank(q.gold_answers, hits) for (hits, _), q in zip(answers, questions, strict=True)]
    right = len(ranks) - ranks.count(None)
    if right == 0 and len(questions) >= FEWEST:
        raise InputError(
            f"retrieval.url = {url}: none of {len(questions)} questions has its answer in {DEPTH} passages found for "
            "it; does this corpus belong to these questions? `r1s recall` compares corpora"
        )
    known = sum(
        titles[title] in {hit.passage.id for hit in hits} for title, (hits, _) in zip(asked, by_title, strict=True)
    )
    seconds = sorted(taken for _, taken in (*answers, *by_title))
    said = (
        f"answer in {DEPTH} passages: {right} of {len(questions)} questions; own title: {known} of {len(asked)}; "
        f"{1000 * median(seconds):.0f} ms per search, at most {1000 * seconds[-1]:.0f}, {len(questions)} at once"
    )
    few = right < LOW_RECALL * len(questions), known < LOW_TITLES * len(asked)
    reasons = ("few questions have their answer in what is found for them", "few titles find their passage")
    return Found(said, tuple(f"{reason} ({said})" for reason, low in zip(reasons, few, strict=True) if low))


async def _timed(retriever: Retriever, question: Question, query: str) -> tuple[Sequence[Hit], float]:
    """What is found, and the seconds that it took."""
    episode = EpisodeContext(question=question.text, gold_answers=tuple(question.gold_answers), id=question.id)
    started = time.perf_counter()
    [hits] = await hits_of(bind(retriever, episode), [query], DEPTH)
    return hits, time.perf_counter() - started


def first_episode(inputs: StageInputs) -> EpisodeContext:
    """The episode of the first training question, to ask a retriever with."""
    if inputs.train is None or not inputs.train.questions:
        return EpisodeContext(question="test")
    first = inputs.train.questions[0]
    return EpisodeContext(question=first.text, gold_answers=tuple(first.gold_answers), id=first.id)


retriever = Check(_retriever, stages=RL_STAGES)
corpus = Check(_corpus, stages=RL_STAGES, costly=True, thorough=True)
