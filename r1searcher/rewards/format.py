"""The format rules, each with the name under which its violation is logged (`format/<name>`).

Only what the model wrote is scored: `Trajectory.turns`, and for what it may write, its question and gold answers.
A right trajectory reads `thought QUERY keywords END_QUERY` for each search and then `thought </think> <answer> …
</answer>`. The prompt has opened the thinking already.
"""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from r1searcher.episodes.protocol import (
    ANSWER,
    DOCUMENTS,
    END_ANSWER,
    END_DOCUMENTS,
    END_QUERY,
    END_THINK,
    QUERY,
    TAGS,
    THINK,
    query_of,
)
from r1searcher.episodes.trajectory import StopReason, Trajectory

MAX_ANSWER_WORDS = 10

_CJK = re.compile(
    "[\u1100-\u11ff\u2e80-\u2fdf\u3000-\u30ff\u3100-\u318f\u31a0-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff"
    "\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\U00020000-\U0003ffff]"
)
_GARBLED = re.compile("[\ufffd\ud800-\udfff\ue000-\uf8ff\U000f0000-\U0010ffff\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_RUN = re.compile(r"(.)\1{39}")


@dataclass(frozen=True)
class Written:
    """What the model wrote, in the pieces that the rules look at."""

    turns: tuple[str, ...]
    stop: StopReason
    allowed: str
    """Question and gold_answers: their characters may be repeated."""
    max_answer_words: int

    @cached_property
    def text(self) -> str:
        return "\n".join(self.turns)  # joined by something, so that no tag can form across two turns

    @cached_property
    def last(self) -> str:
        return self.turns[-1] if self.turns else ""

    @cached_property
    def answer(self) -> str | None:
        return raw_answer(self.last)

    @cached_property
    def conclusion(self) -> str:
        """What stands behind the first `</think>` of the last turn."""
        return self.last.partition(END_THINK)[2]


def raw_answer(turn: str) -> str | None:
    """The text of a turn's last closed answer with its outer blanks, None when there is none.

    >>> raw_answer("So it is Oslo. </think> <answer> Oslo </answer>")
    ' Oslo '
    """
    before, closed, _ = turn.rpartition(END_ANSWER)
    _, opened, answer = before.rpartition(ANSWER)
    return answer if closed and opened else None


def _unfinished(written: Written) -> bool:
    """The episode ended before an answer was closed."""
    return written.stop is not StopReason.ANSWERED


def _thinking_not_closed(written: Written) -> bool:
    """No `</think>` in the last turn."""
    return END_THINK not in written.last


def _thinking_closed_twice(written: Written) -> bool:
    """More than one `</think>`."""
    return written.text.count(END_THINK) > 1


def _no_answer(written: Written) -> bool:
    """No `<answer>…</answer>` with something in it stands behind `</think>`."""
    return not (raw_answer(written.conclusion) or "").strip()


def _several_answers(written: Written) -> bool:
    """More than one `<answer>` or `</answer>`."""
    return written.text.count(ANSWER) > 1 or written.text.count(END_ANSWER) > 1


def _text_around_answer(written: Written) -> bool:
    """Something else than blanks stands between `</think>` and `<answer>`, or behind `</answer>`."""
    before, opened, _ = written.conclusion.partition(ANSWER)
    _, closed, behind = written.conclusion.rpartition(END_ANSWER)
    return bool(opened and before.strip()) or bool(closed and behind.strip())


def _long_answer(written: Written) -> bool:
    """The answer has more words than allowed (10 unless set)."""
    return written.answer is not None and len(written.answer.split()) > written.max_answer_words


def _misplaced_tag(written: Written) -> bool:
    """A tag where none belongs: `<think>` again, any tag inside the answer, an answer or `</think>` before a search."""
    if THINK in written.text:
        return True
    if written.answer is not None and any(tag in written.answer for tag in TAGS):
        return True
    if any(tag in turn for turn in written.turns[:-1] for tag in (END_THINK, ANSWER, END_ANSWER)):
        return True
    return ANSWER in written.last.partition(END_THINK)[0] or QUERY in written.conclusion


def _malformed_query(written: Written) -> bool:
    """A query that is empty, never opened, never closed, or opened more than once."""
    if any(query_of(turn) is None for turn in written.turns[:-1]):
        return True
    return (QUERY in written.last or END_QUERY in written.last) and query_of(written.last) is None


def _forged_documents(written: Written) -> bool:
    """The model wrote a documents tag: documents are the environment's to write."""
    return DOCUMENTS in written.text or END_DOCUMENTS in written.text


def _foreign_script(written: Written) -> bool:
    """Chinese, Japanese or Korean characters, while neither the question nor a gold holds any."""
    return not written.text.isascii() and bool(_CJK.search(written.text)) and not _CJK.search(written.allowed)


def _garbled_text(written: Written) -> bool:
    """Replacement, control or private-use characters: bytes that decode to no readable text."""
    return bool(_GARBLED.search(written.text))


def _stuck_text(written: Written) -> bool:
    """A character 40 times in a row, a word 10 times in a row, or 300 characters without a blank."""
    words = written.text.split()
    long_words = [word for word in words if len(word) >= 40]
    if any(len(word) >= 300 or _RUN.search(word) for word in long_words):
        return True
    if not any(map(operator.eq, words, words[9:])):  # true of any ten in a row, and seldom else
        return False
    return any(len(list(run)) >= 10 for _, run in groupby(words))


RULES: dict[str, Callable[[Written], bool]] = {
    rule.__name__.removeprefix("_"): rule
    for rule in (
        _unfinished,
        _thinking_not_closed,
        _thinking_closed_twice,
        _no_answer,
        _several_answers,
        _text_around_answer,
        _long_answer,
        _misplaced_tag,
        _malformed_query,
        _forged_documents,
        _foreign_script,
        _garbled_text,
        _stuck_text,
    )
}
"""Name of a rule to the predicate that holds where it is broken; the docstring says when."""


def violations(trajectory: Trajectory, max_answer_words: int = MAX_ANSWER_WORDS) -> tuple[str, ...]:
    """Names of the rules that the model broke, in the order of `RULES`; empty when the format is right."""
    allowed = " ".join((trajectory.question, *trajectory.gold_answers))
    written = Written(trajectory.turns, trajectory.stop, allowed, max_answer_words)
    return tuple(name for name, broken in RULES.items() if broken(written))


def answer_of_trajectory(trajectory: Trajectory) -> str | None:
    """The raw answer that the model gave at the end, None when it gave none."""
    turns = trajectory.turns
    return raw_answer(turns[-1]) if turns else None
