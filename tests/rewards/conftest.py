from collections.abc import Callable, Sequence

import pytest

from r1searcher.corpora.passage import Passage
from r1searcher.episodes.protocol import Query
from r1searcher.episodes.protocols.r1_searcher import R1_SEARCHER
from r1searcher.episodes.trajectory import Author, Search, Segment, StopReason, Trajectory
from r1searcher.retrieval.base import Hit

TAGS = R1_SEARCHER.tags
Build = Callable[..., Trajectory]


def build(
    *turns: str,
    gold_answers: Sequence[str] = ("Oslo",),
    question: str = "What is the capital of Norway?",
    found: Sequence[str] = ("Oslo is the capital of Norway.",),
    stop: StopReason | None = None,
) -> Trajectory:
    """A trajectory of these model turns, with documents after each that closes a query and is followed by another."""

    def segment(author: Author, text: str) -> Segment:
        return Segment(author, text, tuple(text.encode()))

    segments = [segment(Author.PROMPT, f"Question: {question}\n<think>")]
    searches = []
    for number, turn in enumerate(turns, 1):
        segments.append(segment(Author.MODEL, turn))
        query = R1_SEARCHER.read_turn(turn)
        if isinstance(query, Query) and number < len(turns):
            hits = tuple(Hit(Passage(str(i), "", text), 1.0) for i, text in enumerate(found))
            searches.append(Search(query.text, hits, len(hits), 0.0))
            lines = "\n".join(f"({i})Title:  Text: {text}" for i, text in enumerate(found, 1))
            segments.append(segment(Author.ENVIRONMENT, f"\n\n{TAGS.documents}\n{lines}\n{TAGS.end_documents}\n\n"))
    last = turns[-1] if turns else ""
    ended = StopReason.ANSWERED if last.rstrip().endswith(TAGS.end_answer) else StopReason.EOS_WITHOUT_ANSWER
    if last.endswith(TAGS.end_query):
        ended = StopReason.SEARCH_LIMIT
    return Trajectory(question, tuple(gold_answers), tuple(segments), tuple(searches), stop or ended, R1_SEARCHER.name)


@pytest.fixture(scope="session")
def trajectory() -> Build:
    return build
