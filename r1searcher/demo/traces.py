"""SFT traces over the atlas: how an episode looks, with what a search really found, weak on purpose.

Their weakness sits in two decisions that a reward can turn. Often a trace answers from memory at once, and guesses; now
and then its end breaks the format, whatever came before. Every trace that does search is complete: all hops, good
queries, the right answer. So the warmed-up model rarely does what it knows how to do, and reinforcement learning has
something to find. Traces that stop half-way would teach it that one search is enough.
"""

import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from r1searcher.demo.atlas import AtlasQuestion
from r1searcher.episodes.documents import block_of, documents_of
from r1searcher.episodes.protocol import EpisodeProtocol
from r1searcher.episodes.trajectory import Author
from r1searcher.retrieval.base import Retriever, hits_of

_BLOCK = 20
"""The shares hold exactly in every run of so many traces, so that every optimizer step sees the mixture."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """What traces are made of."""

    searching: float = 0.5
    """Share that searches; the others guess."""

    broken: float = 0.15
    """Share whose end breaks the format, the same among those that search and those that guess."""

    two_hop: float = 0.5
    """Share of questions of two hops."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One episode as (author, text) segments: the prompt, then the model and the documents in turns."""

    question: AtlasQuestion
    segments: tuple[tuple[Author, str], ...]


async def make_traces(
    questions: Sequence[AtlasQuestion],
    retriever: Retriever,
    prompt: Callable[[str], str],
    count: int,
    *,
    protocol: EpisodeProtocol,
    top_k: int,
    max_document_words: int,
    mixture: Mixture | None = None,
    seed: int = 0,
) -> list[Trace]:
    """`count` traces about questions drawn from `questions`, with the documents that `retriever` finds.

    `prompt` renders a question as the stages will. Raises `RetrieverError` when the search engine can't answer.
    """
    mixture = mixture or Mixture()
    rng = random.Random(seed)
    pools = [[question for question in questions if len(question.hops) == hops] for hops in (1, 2)]
    answers: dict[str, list[str]] = {}
    for question in questions:
        answers.setdefault(question.hops[-1].relation, []).append(question.gold_answers[0])

    async def found(query: str) -> str:
        [hits] = await hits_of(retriever, [query], top_k)
        return block_of(documents_of(hits, protocol), protocol, max_document_words)

    traces = []
    shares = zip(*(_flags(rng, share) for share in (mixture.two_hop, mixture.searching, mixture.broken)), strict=True)
    for _, (two_hop, searching, broken) in zip(range(count), shares, strict=False):
        question = rng.choice(pools[two_hop])
        segments = [(Author.PROMPT, prompt(question.question))]
        if searching:
            for thought, query in _searches(question):
                segments.append((Author.MODEL, protocol.write_query(thought, query)))
                segments.append((Author.ENVIRONMENT, await found(query)))
            last = question.hops[-1]
            thought, answer = f" The {last.relation} is {last.answer}.", last.answer
        else:
            thought, answer = " This is well known.", rng.choice(answers[question.hops[-1].relation])
        # A broken end stops at its answer like any other, so it costs no tokens.
        endings = protocol.broken_answers(thought, answer) if broken else ()
        segments.append((Author.MODEL, rng.choice(endings) if endings else protocol.write_answer(thought, answer)))
        traces.append(Trace(question, tuple(segments)))
    return traces


def write_traces(traces: Iterable[Trace], file: Path) -> None:
    """One JSON object a line: {"id": …, "segments": [["prompt" | "model" | "environment", text], …]}."""
    rows = ({"id": trace.question.id, "segments": trace.segments} for trace in traces)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def _searches(question: AtlasQuestion) -> Iterator[tuple[str, str]]:
    """(thought, query) a hop.

    The first word settles whether to search or to guess (" I" or " This"), the third how many hops to plan (" one" or
    " two"). Stage 1 turns the first choice for all questions alike; the second is sure by then, so it gets little push.
    Where plans began with words of their own, stage 1 raised the likelier one for every question; where both parted
    only behind the subject, the SFT did not learn to tell them apart. The second turn of a plan begins otherwise
    (" Now"), lest it slip into the end of a one-hop trace. A turn begins with a blank, so that a tokenizer cuts the
    text where the turns are cut.
    """
    first, *rest = question.hops
    if not rest:
        yield f" I need one fact: the {first.relation} of {first.subject}.", first.query
    for second in rest:
        thought = f" I need two facts: the {first.relation} of {first.subject}, then the {second.relation}."
        yield thought, first.query
        yield f" Now I need the {second.relation} of {second.subject}.", second.query


def _flags(rng: random.Random, share: float) -> Iterator[bool]:
    """Endless flags in random order, of which `share` are true in every block."""
    on = round(_BLOCK * share)
    while True:
        block = [True] * on + [False] * (_BLOCK - on)
        rng.shuffle(block)
        yield from block
