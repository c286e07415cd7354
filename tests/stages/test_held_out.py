"""Held-out figures are means over questions, by hops, and never over fewer than were asked."""

import pytest

from r1searcher.corpora.passage import Passage
from r1searcher.episodes.trajectory import Author, Search, Segment, StopReason, Trajectory
from r1searcher.errors import R1Error
from r1searcher.questions.question import Question
from r1searcher.retrieval.base import Hit
from r1searcher.stages.held_out import held_out_metrics

QUESTIONS = [Question("1", "a?", ("Arden",), 1), Question("2", "b?", ("Oslo",), 2), Question("3", "c?", ("Rome",), 2)]
FOUND = Search("q", (Hit(Passage("1", "T", "x"), 1.0),), 1, 0.0)


def answered(question: Question, answer: str, searches: int) -> Trajectory:
    query = Segment(Author.MODEL, " <|begin_of_query|> q<|end_of_query|>", (1,))
    documents = Segment(Author.ENVIRONMENT, "\n", (2,))
    answer_turn = Segment(Author.MODEL, f" So.</think>\n\n<answer> {answer}</answer>", (3,))
    segments = (Segment(Author.PROMPT, "Q<think>", (0,)), *((query, documents) * searches), answer_turn)
    return Trajectory(
        question.text, question.gold_answers, segments, (FOUND,) * searches, StopReason.ANSWERED, "r1-searcher"
    )


def test_figures_are_means_over_questions_and_over_those_of_each_number_of_hops() -> None:
    trajectories = [
        answered(QUESTIONS[0], "Arden", 1),
        answered(QUESTIONS[1], "Oslo", 2),
        answered(QUESTIONS[2], "x", 0),
    ]
    assert held_out_metrics(trajectories, QUESTIONS) == {
        "retrieval": 0.6667,
        "format": 1.0,
        "f1": 0.6667,
        "em": 0.6667,
        "searches": 1.0,
        "f1_one_hop": 1.0,
        "f1_two_hop": 0.5,
    }


def test_a_question_that_was_not_played_is_an_error_and_no_smaller_mean() -> None:
    with pytest.raises(R1Error, match="1 of 3"):
        held_out_metrics([answered(QUESTIONS[0], "Arden", 1)], QUESTIONS)
