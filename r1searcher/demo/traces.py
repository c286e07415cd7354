"""SFT traces over the atlas: the form of an episode, with real search results, and deliberately weak.

They are complete except for two decisions, each of which is one token. After the plan, half of the traces search and
half guess; stage 1 rewards the search. After reading the answer in the documents, most traces that search prefer
another one; stage 1 rewards both alike, and only stage 2, which rewards the answer, teaches the model to use what it
found. The end of some breaks the format. So after SFT the model rarely does what it is able to do, and reinforcement
learning has something to improve.

The words before a decision are the same for both of its outcomes, so that every trace teaches to plan, and every trace
that searches teaches to search and to read. The words after it are not used at the other decision: stage 1 makes the
words of a guess unlikely everywhere.
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

    doubting: float = 0.8
    """Share of the traces that search whose answer is not the one they found."""

    broken: float = 0.05
    """Share of traces whose end breaks the format, whatever their answer."""

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
    two_hop, searching, doubting, broken = (
        _flags(rng, share) for share in (mixture.two_hop, mixture.searching, mixture.doubting, mixture.broken)
    )
    for _ in range(count):
        question = rng.choice(pools[next(two_hop)])
        segments = [(Author.PROMPT, prompt(question.question))]
        last, guess = question.hops[-1], rng.choice(answers[question.hops[-1].relation])
        plan, *further = _thoughts(question)
        if next(searching):
            for hop, thought in zip(question.hops, (plan, *further), strict=True):
                segments.append((Author.MODEL, protocol.write_query(thought, hop.query)))
                segments.append((Author.ENVIRONMENT, await found(hop.query)))
            doubts = next(doubting)
            answer = guess if doubts else last.answer
            thought = f" The {last.relation} is {last.answer}" + (f", though others say {guess}." if doubts else ".")
        else:
            thought, answer = f"{plan} This is well known.", guess
        # A broken end stops at its answer like any other, so it does not cost extra tokens.
        endings = protocol.broken_answers(thought, answer) if next(broken) else ()
        segments.append((Author.MODEL, rng.choice(endings) if endings else protocol.write_answer(thought, answer)))
        traces.append(Trace(question, tuple(segments)))
    return traces


def _thoughts(question: AtlasQuestion) -> Iterator[str]:
    """What is thought before each search. The first is the plan.

    A plan says how many facts it needs before it names them: with plans that differed only after the subject, SFT did
    not learn to distinguish them. The second turn of a plan begins differently (" Now"), so that it is not used at the
    end of a one-hop trace, and says again which relation it is about: without it, directors were read for composers.
    A turn begins with a space, so that a tokenizer splits the text between turns.
    """
    first, *rest = question.hops
    if not rest:
        yield f" I need one fact: the {first.relation} of {first.subject}."
    for second in rest:
        yield f" I need two facts: the {first.relation} of {first.subject}, then the {second.relation}."
        yield f" Now I need the {second.relation} of the {first.relation} {second.subject}."


def _flags(rng: random.Random, share: float) -> Iterator[bool]:
    """An endless sequence of flags in random order, of which `share` are true in every block."""
    on = round(_BLOCK * share)
    while True:
        block = [True] * on + [False] * (_BLOCK - on)
        rng.shuffle(block)
        yield from block
