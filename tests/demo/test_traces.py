from pathlib import Path

import pytest

from r1searcher.demo.atlas import Atlas, make_atlas
from r1searcher.demo.traces import Mixture, Trace, make_traces
from r1searcher.episodes.protocol import Query
from r1searcher.episodes.protocols.r1_searcher import R1_SEARCHER
from r1searcher.episodes.trajectory import Author, Segment, StopReason, Trajectory
from r1searcher.questions.traces import read_traces, write_traces
from r1searcher.retrieval.engines.bm25 import EmbeddedIndex
from r1searcher.retrieval.indexing.bm25 import build
from r1searcher.rewards.format import answer_of_trajectory, violations

MIXTURE = Mixture(searching=0.6, broken=0.2, two_hop=0.5)


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    return make_atlas(0)


@pytest.fixture
async def traces(atlas: Atlas, tmp_path: Path) -> list[Trace]:
    build(atlas.passages, tmp_path / "index")
    retriever = EmbeddedIndex(tmp_path / "index")
    made = await make_traces(
        atlas.train,
        retriever,
        "{}\n<think>".format,
        200,
        protocol=R1_SEARCHER,
        top_k=2,
        max_document_words=40,
        mixture=MIXTURE,
        seed=1,
    )
    await retriever.aclose()
    return made


def as_trajectory(trace: Trace) -> Trajectory:
    """The trace as the judge of format sees an episode; token ids are not looked at."""
    segments = tuple(Segment(author, text, ()) for author, text in trace.segments)
    return Trajectory(
        trace.question.question, trace.question.gold_answers, segments, (), StopReason.ANSWERED, "r1-searcher"
    )


def searches(trace: Trace) -> int:
    return sum(author is Author.ENVIRONMENT for author, _ in trace.segments)


async def test_the_shares_of_the_mixture_hold(traces: list[Trace]) -> None:
    assert len(traces) == 200
    assert sum(searches(trace) > 0 for trace in traces) == 120
    assert sum(bool(violations(as_trajectory(trace))) for trace in traces) == 40
    assert sum(len(trace.question.hops) == 2 for trace in traces) == 100


async def test_a_trace_that_searches_goes_all_the_way_to_the_gold(traces: list[Trace]) -> None:
    for trace in traces:
        if searches(trace):
            assert searches(trace) == len(trace.question.hops)
            answer = answer_of_trajectory(as_trajectory(trace))
            assert answer is not None
            assert answer.strip() == trace.question.gold_answers[0]


async def test_every_documents_block_is_what_the_query_before_it_found(atlas: Atlas, traces: list[Trace]) -> None:
    text = {passage.title: passage.text for passage in atlas.passages}
    for trace in traces:
        for hop, place in zip(trace.question.hops, range(1, len(trace.segments) - 1, 2), strict=False):
            assert R1_SEARCHER.read_turn(trace.segments[place][1]) == Query(hop.query)
            assert f"Title: {hop.subject} Text: {text[hop.subject]}" in trace.segments[place + 1][1]


async def test_guesses_are_no_better_than_chance(traces: list[Trace]) -> None:
    guessed = [trace for trace in traces if not searches(trace)]
    right = [t for t in guessed if (answer_of_trajectory(as_trajectory(t)) or "").strip() in t.question.gold_answers]
    assert len(right) < len(guessed) / 4


async def test_the_sft_reads_them(traces: list[Trace], tmp_path: Path) -> None:
    write_traces(tmp_path / "traces.jsonl", [(trace.question.id, trace.segments) for trace in traces])
    assert list(read_traces(tmp_path / "traces.jsonl")) == [trace.segments for trace in traces]
