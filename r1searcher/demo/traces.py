"""SFT traces over the atlas: the form of an episode, with real search results, and deliberately weak.

They are weak in two decisions that a reward can change. Many traces guess the answer without a search, and the end of
some breaks the format. Every trace that searches is complete: all hops, good queries, the right answer. So after SFT
the model rarely does what it is able to do, and reinforcement learning has something to improve. Incomplete traces
would teach it that one search is enough.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from r1searcher.demo.atlas import AtlasQuestion
from r1searcher.episodes.documents import block_of, documents_of
from r1searcher.episodes.protocol import EpisodeProtocol
from r1searcher.episodes.trajectory import Author
from r1searcher.retrieval.base import Retriever, hits_of

_BLOCK = 20
"""Each consecutive block of this many traces has exactly the shares of the mixture, and so has every update."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """The shares of each kind of trace."""

    searching: float = 0.5
    """Share of traces that search; the others guess."""

    broken: float = 0.15
    """Share of traces whose end breaks the format, equal among those that search and those that guess."""

    two_hop: float = 0.5
    """Share of two-hop questions."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One episode as (author, text) segments: the prompt, then alternating model and documents."""

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

    `prompt` renders a question as in the stages. Raises `RetrieverError` if the search engine fails.
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
        # A broken end stops at its answer like any other, so it does not cost extra tokens.
        endings = protocol.broken_answers(thought, answer) if broken else ()
        segments.append((Author.MODEL, rng.choice(endings) if endings else protocol.write_answer(thought, answer)))
        traces.append(Trace(question, tuple(segments)))
    return traces


def _searches(question: AtlasQuestion) -> Iterator[tuple[str, str]]:
    """(thought, query) per hop.

    The first word decides whether to search or to guess (" I" or " This"), the third how many hops to plan (" one" or
    " two"). Stage 1 changes the first decision for all questions alike; the second is certain by then, so its gradient
    is small. With plans that began with different words, stage 1 raised the more likely one for every question; with
    plans that differed only after the subject, SFT did not learn to distinguish them. The second turn of a plan begins
    differently (" Now"), so that it is not used at the end of a one-hop trace. A turn begins with a space, so that a
    tokenizer splits the text between turns.
    """
    first, *rest = question.hops
    if not rest:
        yield f" I need one fact: the {first.relation} of {first.subject}.", first.query
    for second in rest:
        thought = f" I need two facts: the {first.relation} of {first.subject}, then the {second.relation}."
        yield thought, first.query
        yield f" Now I need the {second.relation} of {second.subject}.", second.query


def _flags(rng: random.Random, share: float) -> Iterator[bool]:
    """An endless sequence of flags in random order, of which `share` are true in every block."""
    on = round(_BLOCK * share)
    while True:
        block = [True] * on + [False] * (_BLOCK - on)
        rng.shuffle(block)
        yield from block
