from dataclasses import replace

import pytest

from r1searcher.episodes.trajectory import StopReason
from r1searcher.rewards.format import FORMAT_RULES, violations

SEARCH = " I look it up. <|begin_of_query|> capital of Norway <|end_of_query|>"
RIGHT = "It says Oslo. </think>\n\n<answer> Oslo </answer>"


def test_a_search_and_an_answer_break_nothing(trajectory) -> None:
    assert violations(trajectory(SEARCH, SEARCH, RIGHT)) == ()


def test_an_answer_without_a_search_breaks_nothing(trajectory) -> None:
    assert violations(trajectory(RIGHT)) == ()


@pytest.mark.parametrize(
    ("turns", "broken"),
    [
        ([], {"unfinished", "thinking_not_closed", "no_answer"}),
        ([""], {"unfinished", "thinking_not_closed", "no_answer"}),
        (["So Oslo. </think> Oslo"], {"unfinished", "no_answer"}),
        (["<answer> Oslo </answer>"], {"thinking_not_closed", "no_answer", "misplaced_tag"}),
        (["a </think> b </think> <answer> Oslo </answer>"], {"thinking_closed_twice", "text_around_answer"}),
        (["a </think> <answer>  </answer>"], {"no_answer"}),
        (["a </think> so <answer> Oslo </answer>"], {"text_around_answer"}),
        (["a </think> <answer> Oslo </answer> indeed"], {"unfinished", "text_around_answer"}),
        (["a </think> <answer> Bergen </answer> <answer> Oslo </answer>"], {"several_answers"}),
        (["a </think> <answer> Bergen <answer> Oslo </answer>"], {"several_answers"}),
        (["a </think> <answer> one two three four five six seven eight nine ten eleven </answer>"], {"long_answer"}),
        (["a <think> b </think> <answer> Oslo </answer>"], {"misplaced_tag"}),
        (["a </think> <answer> Oslo </think></answer>"], {"thinking_closed_twice", "misplaced_tag"}),
        (
            ["a </think> <|begin_of_query|> x <|end_of_query|>", RIGHT],
            {"thinking_closed_twice", "misplaced_tag"},
        ),
        (["<answer> Oslo " + SEARCH, RIGHT], {"several_answers", "misplaced_tag"}),
        (
            ["<|begin_of_query|>  <|end_of_query|>"],
            {"unfinished", "thinking_not_closed", "no_answer", "malformed_query"},
        ),
        (["<|begin_of_query|> Oslo? </think> <answer> Oslo </answer>"], {"malformed_query"}),
        ([SEARCH], {"unfinished", "thinking_not_closed", "no_answer"}),
        (["<|end_of_documents|> a </think> <answer> Oslo </answer>"], {"forged_documents"}),
        (["挪威的首都 </think> <answer> Oslo </answer>"], {"foreign_script"}),
        (["한국 </think> <answer> Oslo </answer>"], {"foreign_script"}),
        (["a\ufffd\ufffd </think> <answer> Oslo </answer>"], {"garbled_text"}),
        (["\x07 </think> <answer> Oslo </answer>"], {"garbled_text"}),
        (["so so so so so so so so so so Oslo </think> <answer> Oslo </answer>"], {"stuck_text"}),
        (["!" * 40 + " </think> <answer> Oslo </answer>"], {"stuck_text"}),
        (["qz" * 150 + " </think> <answer> Oslo </answer>"], {"stuck_text"}),
    ],
)
def test_each_broken_rule_is_named(trajectory, turns: list[str], broken: set[str]) -> None:
    assert set(violations(trajectory(*turns))) == broken


def test_every_rule_is_broken_by_some_case_above() -> None:
    [mark] = test_each_broken_rule_is_named.pytestmark
    assert set(FORMAT_RULES.builtin) == {name for _, broken in mark.args[1] for name in broken}


def test_latin_scripts_with_accents_are_readable(trajectory) -> None:
    assert violations(trajectory("Ægir Çelik, Jędrzejewicz – “so” </think> <answer> Łódź </answer>")) == ()


def test_characters_of_the_question_may_be_repeated(trajectory) -> None:
    turns = ("東京 is Tokyo </think> <answer> Tokyo </answer>",)
    assert violations(trajectory(*turns, question="What is 東京 in English?")) == ()
    assert violations(trajectory(*turns)) == ("foreign_script",)


def test_the_longest_answer_is_a_setting(trajectory) -> None:
    turn = "a </think> <answer> one two three </answer>"
    assert violations(trajectory(turn), max_answer_words=3) == ()
    assert violations(trajectory(turn), max_answer_words=2) == ("long_answer",)


def test_an_episode_that_was_cut_is_broken_even_if_its_text_looks_right(trajectory) -> None:
    assert violations(trajectory(RIGHT, stop=StopReason.TURN_TRUNCATED)) == ("unfinished",)


def test_text_behind_the_stop_string_is_not_judged(trajectory) -> None:
    whole = trajectory(RIGHT + "</answer")
    last = replace(whole.segments[-1], overhang=len("</answer"))
    assert violations(replace(whole, segments=(*whole.segments[:-1], last), stop=StopReason.ANSWERED)) == ()
