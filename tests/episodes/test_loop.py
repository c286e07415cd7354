"""The episode loop on real tokenizers. No GPU, no server, no trained model."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from r1searcher.episodes.loop import (
    EpisodeLimits,
    EpisodeRequest,
    FinishReason,
    Generation,
    run_episode,
    sampled_segment,
)
from r1searcher.episodes.protocols.r1_searcher import R1_SEARCHER
from r1searcher.episodes.tokens import HuggingFaceTokenizer
from r1searcher.episodes.trajectory import Author, StopReason, Trajectory
from r1searcher.errors import InputError, RetrieverError
from r1searcher.retrieval.base import EpisodeContext, Retriever, SearchResult, Span
from r1searcher.runs.records import from_row, to_row
from tests.episodes.conftest import END, byte_level_bpe
from tests.episodes.scripted import GivenPassages, ScriptedModel

TAGS = R1_SEARCHER.tags
PROMPT = "Question: Which river? <think>"
SEARCH = " I need it. <|begin_of_query|> Foxford river<|end_of_query|>"
ANSWER = " The documents say Arden. </think>\n\n<answer> Arden </answer>"

fragments = st.sampled_from(
    [*TAGS, "Arden", " Foxford river ", "\n\n", "</answer>.", "<answer> Oslo", "naïve 東京", "🙂", END, "<|", "|>", "."]
)
texts = st.lists(fragments, max_size=8).map("".join)
turns = st.lists(st.one_of(texts, st.just(SEARCH), st.just(ANSWER)), max_size=5)
documents = st.lists(st.one_of(texts, st.text(max_size=80)), max_size=3)
limits = st.builds(
    EpisodeLimits,
    max_searches=st.integers(0, 3),
    max_new_tokens=st.integers(1, 60),
    max_context=st.integers(150, 400),
    top_k=st.integers(1, 3),
    max_document_words=st.integers(1, 30),
)


ROOMY = EpisodeLimits(max_context=600, max_new_tokens=80)


def request(budget: EpisodeLimits = ROOMY) -> EpisodeRequest:
    return EpisodeRequest(
        question="Which river?", gold_answers=["Arden"], prompt=PROMPT, protocol=R1_SEARCHER, limits=budget
    )


def end_of(tokenizer: HuggingFaceTokenizer) -> int:
    [end] = tokenizer.encode(END)
    return end


def run(
    tokenizer: HuggingFaceTokenizer,
    turns: list[str],
    passages: list[str],
    budget: EpisodeLimits = ROOMY,
) -> tuple[Trajectory, ScriptedModel, GivenPassages]:
    model = ScriptedModel(tokenizer, turns, end_of(tokenizer))
    retriever = GivenPassages(passages)
    trajectory = asyncio.run(run_episode(request(budget), model, retriever, tokenizer))
    return trajectory, model, retriever


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=turns, passages=documents, budget=limits)
def test_ids_text_and_mask_agree_whatever_is_written_and_found(
    tokenizer: HuggingFaceTokenizer, turns: list[str], passages: list[str], budget: EpisodeLimits
) -> None:
    trajectory, model, _ = run(tokenizer, turns, passages, budget)

    for segment in trajectory.segments:
        assert tokenizer.decode(segment.token_ids) == segment.text
        assert segment.text.startswith(segment.text_before_stop)
    assert trajectory.text == "".join(tokenizer.decode(s.token_ids) for s in trajectory.segments)
    # The mask is on for exactly the sampled tokens, in their places.
    sampled = [token for turn in model.sampled for token in turn]
    assert [token for token, own in zip(trajectory.token_ids, trajectory.mask, strict=True) if own] == sampled
    # What the engine was given each turn is what had been recorded until then: nothing is encoded twice.
    recorded: list[list[int]] = []
    context: list[int] = []
    for segment in trajectory.segments:
        if segment.author is Author.MODEL:
            recorded.append(list(context))
        context += segment.token_ids
    assert model.contexts == recorded
    assert len(trajectory.token_ids) <= budget.max_context
    assert len(trajectory.searches) <= budget.max_searches
    assert all(len(turn) <= budget.max_new_tokens for turn in model.sampled)
    assert trajectory.segments[0].token_ids == tuple(tokenizer.encode(PROMPT))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=turns, one=documents, other=documents)
def test_other_passages_change_no_token_that_the_model_wrote(
    tokenizer: HuggingFaceTokenizer, turns: list[str], one: list[str], other: list[str]
) -> None:
    budget = EpisodeLimits(max_context=4000, max_new_tokens=60)  # room for both, so that no budget cuts differently
    first, _, _ = run(tokenizer, list(turns), one, budget)
    second, _, _ = run(tokenizer, list(turns), other, budget)

    def written(trajectory: Trajectory) -> list[tuple[int, ...]]:
        return [s.token_ids for s in trajectory.segments if s.author is Author.MODEL]

    assert written(first) == written(second)
    assert first.stop == second.stop


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(passages=documents)
def test_tags_in_passages_are_sanitized_before_the_model_sees_them(
    tokenizer: HuggingFaceTokenizer, passages: list[str]
) -> None:
    trajectory, _, _ = run(tokenizer, [SEARCH, ANSWER], passages)
    [block] = [s for s in trajectory.segments if s.author is Author.ENVIRONMENT]
    inner = block.text.replace(TAGS.documents, "", 1).replace(TAGS.end_documents, "", 1)
    assert not any(tag in inner for tag in (*TAGS, END))
    assert not set(block.token_ids) & {end_of(tokenizer)}


def test_a_search_and_an_answer_end_as_answered(tokenizer: HuggingFaceTokenizer) -> None:
    trajectory, _, retriever = run(tokenizer, [SEARCH, ANSWER], ["It lies on the Arden."])
    assert trajectory.stop is StopReason.ANSWERED
    assert retriever.queries == ["Foxford river"]
    assert [s.author for s in trajectory.segments] == [
        Author.PROMPT,
        Author.MODEL,
        Author.ENVIRONMENT,
        Author.MODEL,
    ]


def test_a_stop_inside_a_token_leaves_its_rest_as_overhang() -> None:
    tokenizer = byte_level_bpe(reserved_tags=False)
    trajectory, model, _ = run(tokenizer, ["So it is Oslo.</think><answer>Oslo</answer>.\n"], [])
    [turn] = [s for s in trajectory.segments if s.author is Author.MODEL]
    assert turn.overhang > 0, "the test's tokenizer must merge across the end of the tag"
    assert turn.text == tokenizer.decode(model.sampled[0])
    assert turn.text_before_stop.endswith("</answer>")
    assert trajectory.turns == (turn.text_before_stop,)


@pytest.mark.parametrize(
    ("turns", "budget", "stop"),
    [
        ([SEARCH, SEARCH, ANSWER], {"max_searches": 1}, StopReason.SEARCH_LIMIT),
        ([SEARCH, ANSWER], {"max_searches": 0}, StopReason.SEARCH_LIMIT),
        ([" I think and think and think"], {"max_new_tokens": 3}, StopReason.TURN_TRUNCATED),
        ([" nothing more to say"], {}, StopReason.EOS_WITHOUT_ANSWER),
        ([" <|begin_of_query|> <|end_of_query|>"], {}, StopReason.MALFORMED_QUERY),
        ([" river<|end_of_query|>"], {}, StopReason.MALFORMED_QUERY),
        ([" <|begin_of_documents|> made up"], {}, StopReason.FORGED_DOCUMENTS),
    ],
)
def test_why_an_episode_stops(
    tokenizer: HuggingFaceTokenizer, turns: list[str], budget: dict[str, int], stop: StopReason
) -> None:
    trajectory, _, retriever = run(
        tokenizer,
        turns,
        ["It lies on the Arden."],
        EpisodeLimits(**{"max_new_tokens": 80, "max_context": 600, **budget}),
    )
    assert trajectory.stop is stop
    assert len(retriever.queries) == len(trajectory.searches)


def test_documents_are_cut_to_fit_and_leave_room_for_a_whole_turn(tokenizer: HuggingFaceTokenizer) -> None:
    budget = EpisodeLimits(max_new_tokens=60, max_context=330, max_document_words=400)
    trajectory, model, _ = run(tokenizer, [SEARCH, ANSWER], ["lies on the Arden " * 200] * 3, budget)
    assert [s.author for s in trajectory.segments].count(Author.ENVIRONMENT) == 1
    assert len(model.contexts[1]) <= budget.max_context - budget.max_new_tokens
    assert trajectory.stop is StopReason.ANSWERED
    assert trajectory.searches[0].shown >= 1


def test_a_context_without_room_for_documents_ends_the_episode(tokenizer: HuggingFaceTokenizer) -> None:
    prompt = len(tokenizer.encode(PROMPT))
    turn = len(tokenizer.encode(SEARCH))
    budget = EpisodeLimits(max_new_tokens=turn + 1, max_context=prompt + 2 * turn + 4, max_document_words=50)
    trajectory, _, _ = run(tokenizer, [SEARCH, ANSWER], ["It lies on the Arden."] * 3, budget)
    assert trajectory.stop is StopReason.CONTEXT_FULL
    assert trajectory.searches[0].shown == 0
    assert trajectory.segments[-1].author is Author.MODEL


def test_a_question_too_long_for_the_context_is_refused_and_never_cut(tokenizer: HuggingFaceTokenizer) -> None:
    with pytest.raises(InputError, match=r"episode\.max_context"):
        run(tokenizer, [ANSWER], [], EpisodeLimits(max_new_tokens=4, max_context=5))


def test_a_retriever_that_is_down_gives_no_trajectory(tokenizer: HuggingFaceTokenizer) -> None:
    class Down(GivenPassages):
        async def search(self, queries, top_k):  # type: ignore[no-untyped-def]
            raise RetrieverError("connection refused")

    model = ScriptedModel(tokenizer, [SEARCH, ANSWER], end_of(tokenizer))
    with pytest.raises(RetrieverError):
        asyncio.run(run_episode(request(), model, Down([]), tokenizer))


def test_logprobs_stand_beside_their_tokens(tokenizer: HuggingFaceTokenizer) -> None:
    trajectory, _, _ = run(tokenizer, [SEARCH, ANSWER], ["It lies on the Arden."])
    for segment in trajectory.segments:
        if segment.author is Author.MODEL:
            assert segment.logprobs is not None
            assert len(segment.logprobs) == len(segment.token_ids)
            assert all(later < earlier for earlier, later in pairwise(segment.logprobs))


def test_an_end_token_is_sampled_but_not_said(tokenizer: HuggingFaceTokenizer) -> None:
    end = end_of(tokenizer)
    segment = sampled_segment(Generation((*tokenizer.encode("Arden"), end), FinishReason.EOS), tokenizer, ())
    assert segment.token_ids[-1] == end
    assert segment.text_before_stop.strip() == "Arden"


def test_many_episodes_run_while_one_search_waits() -> None:
    """One slow search holds up its own episode only."""
    tokenizer = byte_level_bpe(reserved_tags=True)
    release = asyncio.Event()
    done: list[int] = []

    class Slow(GivenPassages):
        async def search(self, queries, top_k):  # type: ignore[no-untyped-def]
            await release.wait()
            return await super().search(queries, top_k)

    async def one(number: int) -> None:
        turns = [SEARCH, ANSWER] if number == 0 else [ANSWER]
        model = ScriptedModel(tokenizer, turns, end_of(tokenizer))
        retriever = Slow(["It lies on the Arden."])
        await run_episode(request(), model, retriever, tokenizer)
        done.append(number)
        if len(done) == 7:
            release.set()

    async def everything() -> None:
        await asyncio.wait_for(asyncio.gather(*(one(number) for number in range(8))), timeout=60)

    asyncio.run(everything())
    assert done[-1] == 0
    assert sorted(done) == list(range(8))


class Told(GivenPassages):
    """Is told the episode of each search, and says what the search cost."""

    def __init__(self, texts: list[str], told: list[EpisodeContext]) -> None:
        super().__init__(texts)
        self.told = told

    def for_episode(self, episode: EpisodeContext) -> Retriever:
        self.told.append(episode)
        return self

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        return [replace(result, spans=(SPAN,)) for result in await super().search(queries, top_k)]


SPAN = Span("told", 0.5, cost_usd=0.01, cached=True)


async def test_an_engine_that_asks_is_told_the_episode_and_its_spans_are_kept() -> None:
    tokenizer = byte_level_bpe(reserved_tags=True)
    told: list[EpisodeContext] = []
    model = ScriptedModel(tokenizer, [SEARCH, SEARCH, ANSWER], end_of(tokenizer))
    asked = replace(request(), id="q7", step=3)
    trajectory = await run_episode(asked, model, Told(["It lies on the Arden."], told), tokenizer)
    assert told == [
        EpisodeContext(id="q7", question="Which river?", gold_answers=("Arden",), step=3, search=number)
        for number in (1, 2)
    ]
    assert [search.spans for search in trajectory.searches] == [(SPAN,), (SPAN,)]
    assert from_row(to_row(trajectory)).searches[0].spans == (SPAN,)


async def test_the_error_of_a_query_ends_the_episode_without_a_trajectory() -> None:
    class Refuses(GivenPassages):
        async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
            return [SearchResult(error=RetrieverError("refused")) for _ in queries]

    tokenizer = byte_level_bpe(reserved_tags=True)
    model = ScriptedModel(tokenizer, [SEARCH, ANSWER], end_of(tokenizer))
    with pytest.raises(RetrieverError, match="refused"):
        await run_episode(request(), model, Refuses([]), tokenizer)
