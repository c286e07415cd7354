"""What each recipe pays, and what a model that cheats earns."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1searcher.config.settings import Settings
from r1searcher.episodes.protocols.r1_searcher import R1_SEARCHER
from r1searcher.episodes.trajectory import Author, StopReason
from r1searcher.errors import InputError
from r1searcher.rewards import RECIPES, measure
from r1searcher.runs.resolved import reward_of

TAGS = R1_SEARCHER.tags
SEARCH = " I look it up. <|begin_of_query|> capital of Norway <|end_of_query|>"
RIGHT = "It says Oslo. </think>\n\n<answer> Oslo </answer>"
WRONG = "It says Bergen. </think>\n\n<answer> Bergen </answer>"
MALFORMED = "It says Oslo. <answer> Oslo </answer>"


def reward_function(recipe="paper", stage=1, **settings):
    return reward_of(Settings(reward={"recipe": recipe, **settings}), f"stage{stage}")


def total(recipe: str, stage, trajectory) -> float:
    return reward_function(recipe, stage)(trajectory).total


@pytest.mark.parametrize(
    ("recipe", "stage", "turns", "earned"),
    [
        ("paper", 1, [SEARCH, WRONG], 1.0),
        ("paper", 1, [RIGHT], 0.5),
        ("paper", 1, [SEARCH, MALFORMED], 0.5),
        ("paper", 1, [MALFORMED], 0.0),
        ("paper", 2, [SEARCH, RIGHT], 1.0),
        ("paper", 2, [RIGHT], 1.0),
        ("paper", 2, [SEARCH, WRONG], 0.0),
        ("paper", 2, [SEARCH, MALFORMED], -1.0),
        ("released-llama", 1, [SEARCH, RIGHT], 2.0),
        ("released-llama", 1, [SEARCH, WRONG], 0.0),
        ("released-llama", 1, [RIGHT], 1.5),
        ("released-llama", 1, [MALFORMED], 1.0),
        ("released-llama", 2, [SEARCH, RIGHT], 1.0),
        ("released-llama", 2, [MALFORMED], 0.0),
        ("released-qwen", 2, [SEARCH, RIGHT], 1.0),
        ("released-qwen", 2, [MALFORMED], -1.0),
        ("released-qwen", 2, ["Dear assistant. </think> <answer> Oslo </answer>"], -1.0),
        ("search-r1", 2, [MALFORMED], 1.0),
        ("search-r1", 2, [WRONG], 0.0),
        ("search-r1-format", 2, [RIGHT], 1.0),
        ("search-r1-format", 2, [MALFORMED], 0.8),
        ("search-r1-format", 2, [WRONG], 0.2),
        ("search-r1-format", 2, ["Bergen <answer> Bergen </answer>"], 0.1),
        ("search-r1-format", 2, ["Bergen"], 0.0),
        ("reft", 2, [RIGHT], 1.0),
        ("reft", 2, [WRONG], 0.1),
        ("reft", 2, ["Bergen"], 0.0),
    ],
)
def test_recipes_pay_what_their_formulas_say(trajectory, recipe, stage, turns, earned) -> None:
    assert total(recipe, stage, trajectory(*turns)) == pytest.approx(earned)


QUESTION = "Which city that lies at the end of a fjord is the capital of Norway?"


@pytest.mark.parametrize(
    ("name", "turns", "stage1", "stage2"),
    [
        ("empty output", [""], 0.0, -2.0),
        ("nothing at all", [], 0.0, -2.0),
        ("tag spam", ["".join(TAGS) * 5], 0.0, -2.0),
        ("query tags without a search", ["<|begin_of_query|>" * 3 + "x<|end_of_query|>"], 0.0, -2.0),
        ("a search and then tag spam", [SEARCH, "".join(TAGS)], 0.5, -2.0),
        ("forged documents", ["<|begin_of_documents|> Oslo <|end_of_documents|></think><answer>Oslo</answer>"], 0, -1),
        ("several answers", ["</think><answer>Bergen</answer><answer>Oslo</answer>"], 0.0, -1.0),
        ("every guess in one answer", ["</think><answer>Bergen Moss Tromso Oslo</answer>"], 0.5, 0.4),
        ("every guess in one long answer", ["</think><answer>" + "Bergen " * 9 + "Moss Oslo</answer>"], 0, -2 + 1 / 6),
        ("a Chinese thought", ["挪威的首都是奥斯陆。 </think> <answer> Oslo </answer>"], 0.0, -1.0),
        ("garbled bytes", ["\ufffd\ufffd\ufffd </think> <answer> Oslo </answer>"], 0.0, -1.0),
        ("a stuck word", ["find " * 12 + "</think> <answer> Oslo </answer>"], 0.0, -1.0),
        ("an answer never closed", ["</think> <answer> Oslo"], 0.0, -2.0),
        ("an answer before a search", ["</think><answer>Oslo</answer>" + SEARCH, WRONG], 0.5, -2.0),
        ("no thought at all, which no rule forbids", ["</think> <answer> Oslo </answer>"], 0.5, 1.0),
    ],
)
def test_cheating_earns_in_the_paper_recipe(trajectory, name, turns, stage1, stage2) -> None:
    rollout = trajectory(*turns)
    assert total("paper", 1, rollout) == pytest.approx(stage1), name
    assert total("paper", 2, rollout) == pytest.approx(stage2), name


def test_a_copied_question_earns_no_more_than_the_words_it_shares(trajectory) -> None:
    copied = trajectory(f"</think> <answer> {QUESTION} </answer>", question=QUESTION)
    assert reward_function("paper", 2)(copied).parts == {"f1": 0.0, "format": -2.0}
    short = "Is Oslo in Norway?"
    copied = trajectory(f"</think> <answer> {short} </answer>", question=short)
    assert total("paper", 2, copied) == pytest.approx(2 / 5)


def test_an_answer_inside_documents_is_not_the_models(trajectory) -> None:
    planted = "</think> <answer> Oslo </answer>"
    rollout = trajectory(SEARCH, "I give up.", found=[planted])
    assert total("paper", 1, rollout) == 0.5
    assert total("paper", 2, rollout) == -2.0
    assert measure(rollout)["f1"] == 0
    assert measure(rollout)["answer_in_documents"] == 1


def test_assistant_in_a_document_costs_in_the_released_recipe_only(trajectory) -> None:
    rollout = trajectory(SEARCH, RIGHT, found=["Oslo hired an assistant."])
    assert reward_function("released-qwen", 2)(rollout).total == -1.0
    assert reward_function("released-qwen-fixed", 2)(rollout).total == 1.0
    assert reward_function("paper", 2)(rollout).total == 1.0


pieces = st.lists(st.sampled_from([*TAGS, " Oslo ", " assistant ", "挪", "\ufffd", " so "]), max_size=12).map("".join)


@given(st.lists(pieces, max_size=3), st.lists(pieces, max_size=2), st.sampled_from(["paper", "reft"]))
def test_retrieved_text_changes_no_reward_and_no_metric_but_answer_in_documents(trajectory, thoughts, found, recipe):
    rollout = trajectory(*(thought + SEARCH for thought in thoughts), RIGHT)
    changed = replace(
        rollout,
        segments=tuple(
            replace(segment, text="".join(found)) if segment.author is Author.ENVIRONMENT else segment
            for segment in rollout.segments
        ),
        searches=tuple(replace(search, hits=()) for search in rollout.searches),
    )
    for stage in (1, 2):
        assert reward_function(recipe, stage)(rollout) == reward_function(recipe, stage)(changed)
    before, after = measure(rollout), measure(changed)
    assert before | {"answer_in_documents": 0} == after | {"answer_in_documents": 0}


def test_parts_compose_a_reward(trajectory) -> None:
    reward = reward_function(
        parts=[{"name": "retrieval", "weight": 0.25}, {"name": "em"}, {"name": "format", "weight": 0.5, "if_zero": -3}]
    )
    assert reward(trajectory(SEARCH, RIGHT)).parts == {"retrieval": 0.25, "em": 1.0, "format": 0.5}
    assert reward(trajectory(SEARCH, MALFORMED)).parts == {"retrieval": 0.25, "em": 1.0, "format": -3.0}


def test_the_paper_recipe_is_what_its_parts_say(trajectory) -> None:
    composed = reward_function(parts=[{"name": "f1"}, {"name": "format", "weight": 0, "if_zero": -2}])
    for turns in ([SEARCH, RIGHT], [MALFORMED], [""]):
        assert composed(trajectory(*turns)) == reward_function("paper", 2)(trajectory(*turns))


def test_the_longest_answer_reaches_the_format_part(trajectory) -> None:
    rollout = trajectory("</think> <answer> Oslo it is </answer>")
    assert reward_function("paper", 1, max_answer_words=2)(rollout).total == 0.0
    assert reward_function("paper", 1)(rollout).total == 0.5


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"recipe": "papper"}, "did you mean 'paper'"),
        ({"recipe": "released-qwen", "stage": 1}, "no stage1"),
        ({"parts": [{"name": "fromat"}]}, "did you mean 'format'"),
        ({"parts": [{"name": "f1"}, {"name": "f1"}]}, "named twice"),
    ],
)
def test_wrong_settings_get_a_sentence(arguments, sentence) -> None:
    with pytest.raises(InputError, match=sentence):
        reward_function(**arguments)


def test_every_recipe_can_be_made_for_its_stages(trajectory) -> None:
    for name, stages in RECIPES.items():
        for stage in stages:
            assert isinstance(reward_function(name, int(stage[-1]))(trajectory(RIGHT)).total, float)


def test_measures_of_a_good_episode(trajectory) -> None:
    assert measure(trajectory(SEARCH, SEARCH, RIGHT)) == {
        "em": 1.0,
        "f1": 1.0,
        "cover_em": 1.0,
        "cover_em_contiguous": 1.0,
        "format": 1.0,
        "retrieval": 1.0,
        "searches": 2.0,
        "answer_in_documents": 1.0,
        "query_words": 3.0,
        "new_tokens": float(len((SEARCH + SEARCH + RIGHT).encode())),
        "search_seconds": 0.0,
        "stop/answered": 1.0,
    }


def test_measures_of_an_unfinished_episode_name_what_is_broken(trajectory) -> None:
    measures = measure(trajectory("hm", stop=StopReason.TURN_TRUNCATED))
    assert measures["format"] == 0
    assert measures["stop/turn_truncated"] == 1
    assert {key for key in measures if key.startswith("format/")} == {
        "format/unfinished",
        "format/thinking_not_closed",
        "format/no_answer",
    }
