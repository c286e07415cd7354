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

MIXTURE = Mixture(searching=0.6, doubting=0.75, broken=0.2, two_hop=0.5)


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


def answer(trace: Trace) -> str:
    found = answer_of_trajectory(as_trajectory(trace))
    assert found is not None
    return found.strip()


async def test_the_shares_of_the_mixture_hold(traces: list[Trace]) -> None:
    assert len(traces) == 200
    searching = [trace for trace in traces if searches(trace)]
    assert len(searching) == 120
    assert sum("though" in trace.segments[-1][1] for trace in searching) == 90
    assert sum(bool(violations(as_trajectory(trace))) for trace in traces) == 40
    assert sum(len(trace.question.hops) == 2 for trace in traces) == 100


async def test_a_trace_that_searches_reads_the_gold_and_answers_it_unless_it_doubts(traces: list[Trace]) -> None:
    for trace in traces:
        if searches(trace):
            last, [gold] = trace.segments[-1][1], trace.question.gold_answers
            assert searches(trace) == len(trace.question.hops)
            assert last.startswith(f" The {trace.question.hops[-1].relation} is {gold}")
            doubts = last.startswith(f" The {trace.question.hops[-1].relation} is {gold}, though others say ")
            assert (answer(trace) == gold) or doubts
            assert not doubts or f"others say {answer(trace)}." in last


async def test_traces_of_a_question_begin_with_its_plan_whether_they_search_or_not(traces: list[Trace]) -> None:
    for trace in traces:
        plan = trace.segments[1][1]
        assert plan.startswith(" I need one fact: " if len(trace.question.hops) == 1 else " I need two facts: ")
        assert f"the {trace.question.hops[0].relation} of {trace.question.hops[0].subject}" in plan


async def test_every_documents_block_is_what_the_query_before_it_found(atlas: Atlas, traces: list[Trace]) -> None:
    text = {passage.title: passage.text for passage in atlas.passages}
    for trace in traces:
        for hop, place in zip(trace.question.hops, range(1, len(trace.segments) - 1, 2), strict=False):
            assert R1_SEARCHER.read_turn(trace.segments[place][1]) == Query(hop.query)
            assert f"Title: {hop.subject} Text: {text[hop.subject]}" in trace.segments[place + 1][1]


async def test_guesses_and_doubted_answers_are_no_better_than_chance(traces: list[Trace]) -> None:
    doubting = [trace for trace in traces if "though" in trace.segments[-1][1]]
    for guessed in ([trace for trace in traces if not searches(trace)], doubting):
        right = [trace for trace in guessed if answer(trace) in trace.question.gold_answers]
        assert len(right) < len(guessed) / 4


async def test_the_sft_reads_them(traces: list[Trace], tmp_path: Path) -> None:
    write_traces(tmp_path / "traces.jsonl", [(trace.question.id, trace.segments) for trace in traces])
    assert list(read_traces(tmp_path / "traces.jsonl")) == [trace.segments for trace in traces]
