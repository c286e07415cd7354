import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from r1searcher.demo.atlas import Atlas, make_atlas
from r1searcher.demo.traces import Mixture, Trace, make_traces, write_traces
from r1searcher.episodes.protocol import query_of
from r1searcher.episodes.trajectory import Author, Segment, StopReason, Trajectory
from r1searcher.retrieval.embedded import EmbeddedIndex, build
from r1searcher.rewards.format import answer_of_trajectory, violations
from r1searcher.stages.warmup import read_traces

MIXTURE = Mixture(searching=0.6, broken=0.2, two_hop=0.5, whole=1.0)


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    return make_atlas(0)


async def made_of(mixture: Mixture, atlas: Atlas, index: Path) -> list[Trace]:
    build(atlas.passages, index)
    retriever = EmbeddedIndex(index)
    made = await make_traces(
        atlas.train, retriever, "{}\n<think>".format, 200, top_k=2, max_document_words=40, mixture=mixture, seed=1
    )
    await retriever.aclose()
    return made


@pytest.fixture
async def traces(atlas: Atlas, tmp_path: Path) -> list[Trace]:
    return await made_of(MIXTURE, atlas, tmp_path / "index")


def as_trajectory(trace: Trace) -> Trajectory:
    """The trace as the judge of format sees an episode; token ids are not looked at."""
    segments = tuple(Segment(author, text, ()) for author, text in trace.segments)
    return Trajectory(trace.question.question, trace.question.golds, segments, (), StopReason.ANSWERED)


def searches(trace: Trace) -> int:
    return sum(author is Author.ENVIRONMENT for author, _ in trace.segments)


async def test_the_shares_of_the_mixture_hold(traces: list[Trace]) -> None:
    assert len(traces) == 200
    assert sum(searches(trace) > 0 for trace in traces) == 120
    assert sum(bool(violations(as_trajectory(trace))) for trace in traces) == 40
    assert sum(len(trace.question.hops) == 2 for trace in traces) == 100


@pytest.mark.parametrize("hops", [1, 2])
async def test_every_kind_of_question_is_searched_for_equally_often(traces: list[Trace], hops: int) -> None:
    kinds = Counter(
        tuple(hop.relation for hop in trace.question.hops)
        for trace in traces
        if searches(trace) and len(trace.question.hops) == hops
    )
    assert len(kinds) == {1: 8, 2: 6}[hops]
    assert max(kinds.values()) - min(kinds.values()) <= 1


async def test_traces_not_told_to_their_end_are_the_openings_of_those_that_are(atlas: Atlas, tmp_path: Path) -> None:
    whole = await made_of(MIXTURE, atlas, tmp_path / "whole")
    cut = await made_of(replace(MIXTURE, whole=0.4), atlas, tmp_path / "cut")
    shorter = [(long, short) for long, short in zip(whole, cut, strict=True) if long != short]
    assert shorter
    assert all(short.segments == long.segments[:2] and searches(long) for long, short in shorter)
    assert len(shorter) == sum(searches(long) > 0 for long in whole) - sum(searches(short) > 0 for short in cut)


async def test_a_trace_that_searches_goes_all_the_way_to_the_gold(traces: list[Trace]) -> None:
    for trace in traces:
        if searches(trace):
            assert searches(trace) == len(trace.question.hops)
            answer = answer_of_trajectory(as_trajectory(trace))
            assert answer is not None
            assert answer.strip() == trace.question.golds[0]


async def test_every_documents_block_is_what_the_query_before_it_found(atlas: Atlas, traces: list[Trace]) -> None:
    text = {passage.title: passage.text for passage in atlas.passages}
    for trace in traces:
        for hop, place in zip(trace.question.hops, range(1, len(trace.segments) - 1, 2), strict=False):
            assert query_of(trace.segments[place][1]) == hop.query
            assert f"Title: {hop.subject} Text: {text[hop.subject]}" in trace.segments[place + 1][1]


async def test_guesses_are_no_better_than_chance(traces: list[Trace]) -> None:
    guessed = [trace for trace in traces if not searches(trace)]
    right = [t for t in guessed if (answer_of_trajectory(as_trajectory(t)) or "").strip() in t.question.golds]
    assert len(right) < len(guessed) / 4


async def test_the_warm_up_reads_them_and_learns_no_document(traces: list[Trace], tmp_path: Path) -> None:
    write_traces(traces, tmp_path / "traces.jsonl")
    rows = list(read_traces(tmp_path / "traces.jsonl"))
    assert len(rows) == sum(author is Author.MODEL for trace in traces for author, _ in trace.segments)
    assert not any("Title:" in row["output"] for row in rows)
    first = json.loads((tmp_path / "traces.jsonl").read_text("utf-8").splitlines()[0])
    assert rows[0] == {"input": first["segments"][0][1], "output": first["segments"][1][1]}
