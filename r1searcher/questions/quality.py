"""Warnings about questions that are readable but distort training or metrics."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from r1searcher.questions.question import Question
from r1searcher.rewards.format import MAX_ANSWER_WORDS
from r1searcher.rewards.metrics import normalize

_LIST_AS_TEXT = re.compile(r"\s*\[\s*(['\"]).*\1\s*,?\s*\]\s*", re.DOTALL)


def quality_warnings(questions: Sequence[Question], max_answer_words: int = MAX_ANSWER_WORDS) -> list[str]:
    """Duplicates, and gold answers that no answer can match. One sentence each, without a period."""
    found = []
    texts = Counter(normalize(question.text) for question in questions)
    if repeated := sum(count - 1 for count in texts.values()):
        found.append(f"{_questions(repeated, 'repeats', 'repeat')} an earlier one")
    ids = Counter(question.id for question in questions)
    if repeated := sum(count - 1 for count in ids.values()):
        found.append(f"{repeated} {'row repeats' if repeated == 1 else 'rows repeat'} an earlier id")
    return [*found, *(fault.said for fault in gold_answer_faults(questions, max_answer_words))]


@dataclass(frozen=True, slots=True)
class Fault:
    """Questions with the same fault: how many, and the sentence about them, without a period."""

    count: int
    said: str
    remedy: str


def gold_answer_faults(questions: Sequence[Question], max_answer_words: int = MAX_ANSWER_WORDS) -> list[Fault]:
    """Gold answers that no answer can match in the right format."""
    found = []
    if long := [q for q in questions if all(len(gold.split()) > max_answer_words for gold in q.gold_answers)]:
        said = (
            f"{_questions(len(long), 'has', 'have')} only gold answers of more than {max_answer_words} words: a right "
            f"answer would break the format (first: id {long[0].id})"
        )
        found.append(Fault(len(long), said, "raise reward.max_answer_words, or give short answers"))
    if nothing := [q for q in questions if not any(normalize(gold) for gold in q.gold_answers)]:
        said = (
            f"{_questions(len(nothing), 'has', 'have')} only gold answers that normalize to nothing (first: id "
            f"{nothing[0].id})"
        )
        found.append(Fault(len(nothing), said, "give answers with words or numbers"))
    if listed := [q for q in questions if any(map(_LIST_AS_TEXT.fullmatch, q.gold_answers))]:
        said = (
            f"{_questions(len(listed), 'has', 'have')} a list written as text for a gold answer, and only all of "
            f"it counts: write a JSON list (first: id {listed[0].id})"
        )
        found.append(Fault(len(listed), said, "store the answers as a list, not as its text"))
    return found


def overlap_warning(questions: Sequence[Question], trained_on: Iterable[Question]) -> list[str]:
    """How many of `questions` are in the training data, ignoring case, articles and punctuation."""
    shared = overlap(questions, trained_on)
    return [f"{_questions(shared, 'is', 'are')} in the training data too"] if shared else []


def overlap(questions: Iterable[Question], trained_on: Iterable[Question]) -> int:
    """How many of `questions` are in `trained_on`, ignoring case, articles and punctuation."""
    seen = {normalize(question.text) for question in trained_on}
    return sum(normalize(question.text) in seen for question in questions)


def _questions(count: int, one: str, several: str) -> str:
    return f"{count} {f'question {one}' if count == 1 else f'questions {several}'}"
