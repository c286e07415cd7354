"""A trace for a question, from what a retriever finds: which queries lead to its answer, and the turns that say so.

Names in the question that are titles of passages give the queries. A trace is written only if its documents have the
answer, so that the model learns to read it there: in one search, in a second one for a name that the first passage
mentions, or, to compare, in one search for each name of the question.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from r1searcher.episodes.documents import documents_of, shortened
from r1searcher.episodes.loop import EpisodeLimits
from r1searcher.episodes.protocol import Document, EpisodeProtocol
from r1searcher.episodes.trajectory import Author, Segment, StopReason, Trajectory
from r1searcher.questions.question import Question
from r1searcher.questions.traces import Trace
from r1searcher.retrieval.base import Hit, Retriever, hits_of
from r1searcher.rewards.format import FormatContext, answer_of_trajectory, broken_rules
from r1searcher.rewards.metrics import has_words, is_yes_no, normalize, score
from r1searcher.traces.names import asked_words, bare, capitalized, names_of

CANDIDATES = 10
"""Passages per query among whose titles the names of a question are looked for."""

QUERIES = 8
"""The most names to search for at once, for one question."""


class Way(StrEnum):
    """How a trace reaches its answer."""

    ONE_SEARCH = "one search"
    BRIDGE = "a second search for a name that the first passage mentions"
    COMPARISON = "one search for each name of the question"
    YES_NO = "yes or no"


class Refusal(StrEnum):
    """Why a question has no trace."""

    NO_NAME = "no name in the question is the title of a passage"
    NOT_FOUND = "the answer is not in the documents found"
    NAME_NOT_FOUND = "the passage of a name to compare is not found"
    LONG = "longer than episode.max_context"
    FORMAT = "the answer breaks the format"


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceMaker:
    """The settings of the episodes that the traces are examples of.

    `prompt` renders a question as in the stages. `count_tokens` counts the tokens of a text; without it, traces of any
    length are written.
    """

    protocol: EpisodeProtocol
    prompt: Callable[[str], str]
    limits: EpisodeLimits
    max_answer_words: int
    format_rules: tuple[str, ...] = ()
    special_tokens: tuple[str, ...] = ()
    count_tokens: Callable[[str], int] | None = None

    async def __call__(self, question: Question, retriever: Retriever) -> "tuple[Trace, Way] | Refusal":
        """The trace for a question, or a reason to write none. Raises `RetrieverError` if the search engine fails."""
        search = _Searcher(self, retriever)
        text = self.protocol.sanitize(question.text, self.special_tokens)
        found = await _plan(search, text, question.gold_answers, self.limits.max_searches)
        if isinstance(found, Refusal):
            return found
        return self._checked(question, self._trace(question.text, found), found.way)

    def _trace(self, question: str, plan: "_Plan") -> Trace:
        segments = [(Author.PROMPT, self.prompt(question))]
        for thought, step in zip(plan.thoughts, plan.steps, strict=True):
            segments.append((Author.MODEL, self.protocol.write_query(thought, step.query)))
            segments.append((Author.ENVIRONMENT, step.block))
        answer = self.protocol.sanitize(plan.answer, self.special_tokens)
        segments.append((Author.MODEL, self.protocol.write_answer(plan.conclusion, answer)))
        return tuple(segments)

    def _checked(self, question: Question, trace: Trace, way: Way) -> "tuple[Trace, Way] | Refusal":
        """The trace, if the reward's own code finds its format and its answer right and it fits in the context."""
        segments = tuple(Segment(author, text, ()) for author, text in trace)
        episode = Trajectory(
            question.text, question.gold_answers, segments, (), StopReason.ANSWERED, self.protocol.name
        )
        if broken_rules(FormatContext.of(episode, self.max_answer_words), self.format_rules):
            return Refusal.FORMAT
        if not score(answer_of_trajectory(episode), question.gold_answers).em:
            return Refusal.FORMAT
        if self.count_tokens and sum(self.count_tokens(text) for _, text in trace) > self.limits.max_context:
            return Refusal.LONG
        return trace, way


@dataclass(frozen=True, slots=True)
class _Step:
    """A search of a trace: its query, and the documents as the model sees them."""

    query: str
    documents: tuple[Document, ...]
    block: str

    def has_title(self, name: str) -> bool:
        return any(bare(document.title) == normalize(name) for document in self.documents)

    def evidence(self, gold_answers: Sequence[str], own: str = "") -> tuple[Document, str] | None:
        """The first document with a gold answer, and that answer; one whose title is the name `own` comes first."""
        ranked = sorted(self.documents, key=lambda document: bare(document.title) != normalize(own))
        for document in ranked:
            for gold in gold_answers:
                if _mentions(f"{document.title}. {document.text}", gold):
                    return document, gold
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """The turns of a trace: a thought before each search, and the conclusion."""

    way: Way
    thoughts: tuple[str, ...]
    steps: tuple[_Step, ...]
    conclusion: str
    answer: str


@dataclass(frozen=True, slots=True)
class _Searcher:
    """A retriever with the episodes' limits."""

    maker: TraceMaker
    retriever: Retriever

    async def titles(self, queries: Sequence[str]) -> list[str]:
        """The titles of what the queries find."""
        found = await hits_of(self.retriever, queries, CANDIDATES)
        return [document.title for hits in found for document in self._documents(hits)]

    async def steps(self, queries: Sequence[str]) -> list[_Step]:
        found = await hits_of(self.retriever, queries, self.maker.limits.top_k) if queries else []
        return [self._step(query, self._documents(hits)) for query, hits in zip(queries, found, strict=True)]

    def _documents(self, hits: Sequence[Hit]) -> list[Document]:
        return documents_of(hits, self.maker.protocol, self.maker.special_tokens)

    def _step(self, query: str, documents: Sequence[Document]) -> _Step:
        shown = shortened(documents, self.maker.limits.max_document_words)
        return _Step(query, tuple(shown), self.maker.protocol.render(shown))


async def _plan(search: _Searcher, text: str, gold_answers: Sequence[str], most: int) -> _Plan | Refusal:
    runs = [name.text for name in capitalized(text)]
    titles = await search.titles([text, *runs[: QUERIES - 1]])
    found = names_of(text, titles)
    names = [name.text for name in found]
    if not names or not most:
        return Refusal.NO_NAME
    compared = [gold for gold in gold_answers if is_yes_no(gold) or (len(names) > 1 and _mentions(text, gold))]
    if compared:
        return await _comparison(search, names[:most], compared[0])
    words = " ".join(asked_words(text, found))
    # What is asked for is part of the query; the name alone finds more where those words mislead.
    queries = [(name, query) for name in names[:QUERIES] for query in dict.fromkeys((f"{name} {words}".strip(), name))]
    steps = await search.steps([query for _, query in queries])
    of_name = [(name, step) for (name, _), step in zip(queries, steps, strict=True)]
    return (
        _one_search(of_name, gold_answers)
        or (await _bridge(search, text, of_name, gold_answers) if most > 1 else None)
        or Refusal.NOT_FOUND
    )


def _one_search(steps: Sequence[tuple[str, _Step]], gold_answers: Sequence[str]) -> _Plan | None:
    for name, step in steps:
        if found := step.evidence(gold_answers, name):
            document, answer = found
            return _Plan(
                way=Way.ONE_SEARCH,
                thoughts=(f" I need to know about {name}.",),
                steps=(step,),
                conclusion=f" The passage about {document.title or name} gives {answer}.",
                answer=answer,
            )
    return None


async def _bridge(
    search: _Searcher, question: str, steps: Sequence[tuple[str, _Step]], gold_answers: Sequence[str]
) -> _Plan | None:
    """A second search for a name that a passage about the first one mentions, whose own passage has the answer."""
    mentioned = [
        (name, step, document, other.text)
        for name, step in steps
        for document in step.documents
        if bare(document.title) == normalize(name)
        for other in capitalized(document.text)
        if not _mentions(question, other.text) and not _mentions(document.title, other.text)
    ]
    first: dict[str, tuple[str, _Step, Document, str]] = {}
    for link in mentioned:
        first.setdefault(normalize(link[3]), link)
    links = list(first.values())[:QUERIES]
    for (name, step, document, other), second in zip(
        links, await search.steps([other for *_, other in links]), strict=True
    ):
        found = second.evidence(gold_answers, other)
        if found and bare(found[0].title) == normalize(other):
            return _Plan(
                way=Way.BRIDGE,
                thoughts=(
                    f" I need to know about {name}.",
                    f" The passage about {document.title} names {other}. I need to know about {other}.",
                ),
                steps=(step, second),
                conclusion=f" The passage about {found[0].title} gives {found[1]}.",
                answer=found[1],
            )
    return None


async def _comparison(search: _Searcher, names: Sequence[str], answer: str) -> _Plan | Refusal:
    """One search for each name; the answer is yes, no or one of the names."""
    steps = await search.steps(names)
    if not all(step.has_title(name) for name, step in zip(names, steps, strict=True)):
        return Refusal.NAME_NOT_FOUND
    if not is_yes_no(answer) and not any(step.evidence([answer]) for step in steps):
        return Refusal.NOT_FOUND
    listed = _listed(names)
    says = "passage" if len(names) == 1 else "passages"
    return _Plan(
        way=Way.YES_NO if is_yes_no(answer) else Way.COMPARISON,
        thoughts=(f" I need to know about {listed}.", *(f" Now I need to know about {name}." for name in names[1:])),
        steps=tuple(steps),
        conclusion=f" The {says} about {listed} {'gives' if len(names) == 1 else 'give'} {answer}.",
        answer=answer,
    )


def _listed(names: Sequence[str]) -> str:
    *before, last = names
    return f"{', '.join(before)} and {last}" if before else last


def _mentions(text: str, name: str) -> bool:
    return has_words(normalize(text), normalize(name))
