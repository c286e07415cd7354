from pathlib import Path

import pytest

from r1searcher.demo.atlas import Atlas, make_atlas
from r1searcher.retrieval.base import hits_of
from r1searcher.retrieval.engines.bm25 import EmbeddedIndex
from r1searcher.retrieval.indexing.bm25 import build


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    return make_atlas(3)


@pytest.fixture(scope="module")
def index(atlas: Atlas, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("atlas") / "index"
    build(atlas.passages, folder)
    return folder


def test_a_seed_makes_one_world_and_another_seed_another(atlas: Atlas) -> None:
    assert make_atlas(3) == atlas
    assert make_atlas(4).passages != atlas.passages


def test_a_passage_is_short_and_has_an_id_of_its_own(atlas: Atlas) -> None:
    assert len({passage.id for passage in atlas.passages}) == len(atlas.passages) == 1000
    assert all(8 <= len(passage.text.split()) <= 24 for passage in atlas.passages)


def test_every_fact_stands_in_the_passage_about_its_subject(atlas: Atlas) -> None:
    text = {passage.title: passage.text for passage in atlas.passages}
    for question in atlas.train + atlas.held_out:
        for hop in question.hops:
            assert hop.answer in text[hop.subject]
        assert question.gold_answers == (question.hops[-1].answer,)


def test_a_second_hop_starts_where_the_first_ended(atlas: Atlas) -> None:
    two = [question.hops for question in atlas.train if len(question.hops) == 2]
    assert two
    assert all(first.answer == second.subject for first, second in two)


def test_a_question_names_its_first_subject_and_gives_nothing_away(atlas: Atlas) -> None:
    for question in atlas.held_out:
        assert question.hops[0].subject in question.question
        assert not any(hop.answer in question.question for hop in question.hops)


def test_held_out_questions_speak_of_other_films_people_and_towns(atlas: Atlas) -> None:
    titles = {passage.title for passage in atlas.passages}
    seen, unseen = (
        {name for question in part for hop in question.hops for name in (hop.subject, hop.answer)} & titles
        for part in (atlas.train, atlas.held_out)
    )
    assert len(seen) > 700
    assert len(unseen) > 150
    assert not seen & unseen


def test_about_half_of_the_questions_have_two_hops(atlas: Atlas) -> None:
    for part in (atlas.train, atlas.held_out):
        assert 0.4 < sum(len(question.hops) == 2 for question in part) / len(part) < 0.6


async def test_a_hops_query_finds_its_passage_and_a_two_hop_question_alone_does_not(atlas: Atlas, index: Path) -> None:
    retriever = EmbeddedIndex(index)
    hops = [hop for question in atlas.held_out for hop in question.hops]
    for hop, hits in zip(hops, await hits_of(retriever, [hop.query for hop in hops], 2), strict=True):
        assert hop.subject in [hit.passage.title for hit in hits]
    two = [question for question in atlas.held_out if len(question.hops) == 2]
    for question, hits in zip(two, await hits_of(retriever, [q.question for q in two], 2), strict=True):
        assert question.hops[1].subject not in [hit.passage.title for hit in hits]
    await retriever.aclose()


def test_questions_of_one_hop_and_of_two_take_turns(atlas: Atlas) -> None:
    for part in (atlas.train, atlas.held_out):
        hops = [len(question.hops) for question in part]
        turns = 2 * min(hops.count(1), hops.count(2))
        assert hops[:turns] == [1, 2] * (turns // 2)
