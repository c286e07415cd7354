"""The format rules, each with the name under which its violation is logged (`format/<name>`).

Only what the model wrote is judged: `Trajectory.turns` as the episode's protocol parses them, and for what it may
write, its question and gold answers. Another package adds a rule with an entry point of the group
`r1searcher.format_rules`; it is judged if `reward.format_rules` names it.
"""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import groupby

from r1searcher.common.registry import Registry
from r1searcher.episodes.protocol import PROTOCOLS, EpisodeProtocol, ParsedTurns
from r1searcher.episodes.trajectory import StopReason, Trajectory

MAX_ANSWER_WORDS = 10

_CJK = re.compile(
    "[\u1100-\u11ff\u2e80-\u2fdf\u3000-\u30ff\u3100-\u318f\u31a0-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff"
    "\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\U00020000-\U0003ffff]"
)
_GARBLED = re.compile("[\ufffd\ud800-\udfff\ue000-\uf8ff\U000f0000-\U0010ffff\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_RUN = re.compile(r"(.)\1{39}")


@dataclass(frozen=True)
class FormatContext:
    """What the model wrote in one episode, for the rules."""

    turns: tuple[str, ...]
    parsed: ParsedTurns
    stop: StopReason
    allowed: str
    """Question and gold answers: their characters may be repeated."""
    max_answer_words: int

    @classmethod
    def of(cls, trajectory: Trajectory, max_answer_words: int = MAX_ANSWER_WORDS) -> "FormatContext":
        """Raises `InputError` if the trajectory's protocol is not installed."""
        allowed = " ".join((trajectory.question, *trajectory.gold_answers))
        turns = trajectory.turns
        return cls(turns, _protocol_of(trajectory).parse(turns), trajectory.stop, allowed, max_answer_words)

    @cached_property
    def text(self) -> str:
        return "\n".join(self.turns)  # joined by something, so that no tag can form across two turns


def unfinished(context: FormatContext) -> bool:
    """The episode ended before an answer was closed."""
    return context.stop is not StopReason.ANSWERED


def thinking_not_closed(context: FormatContext) -> bool:
    """The thinking is not closed in the last turn."""
    return context.parsed.thinking_not_closed


def thinking_closed_twice(context: FormatContext) -> bool:
    """The thinking is closed more than once."""
    return context.parsed.thinking_closed_twice


def no_answer(context: FormatContext) -> bool:
    """No complete, nonempty answer follows the thinking."""
    return context.parsed.answer_out_of_place or not (context.parsed.answer or "").strip()


def several_answers(context: FormatContext) -> bool:
    """More than one answer is opened or closed."""
    return context.parsed.several_answers


def text_around_answer(context: FormatContext) -> bool:
    """Something other than white space is between the end of the thinking and the answer, or after the answer."""
    return context.parsed.text_around_answer


def long_answer(context: FormatContext) -> bool:
    """The answer has more words than `reward.max_answer_words` (10 unless set)."""
    answer = context.parsed.answer
    return answer is not None and len(answer.split()) > context.max_answer_words


def misplaced_tag(context: FormatContext) -> bool:
    """A misplaced tag: the thinking opened again, any tag inside the answer, an answer or the end of the
    thinking before a search."""
    return context.parsed.misplaced_tag


def malformed_query(context: FormatContext) -> bool:
    """A query is empty, never opened, never closed, or opened more than once."""
    return context.parsed.malformed_query


def forged_documents(context: FormatContext) -> bool:
    """The model wrote a documents tag: only the environment writes documents."""
    return context.parsed.forged_documents


def foreign_script(context: FormatContext) -> bool:
    """Chinese, Japanese or Korean characters, while neither the question nor a gold answer contains any."""
    return not context.text.isascii() and bool(_CJK.search(context.text)) and not _CJK.search(context.allowed)


def garbled_text(context: FormatContext) -> bool:
    """Replacement, control or private-use characters: bytes that decode to no readable text."""
    return bool(_GARBLED.search(context.text))


def stuck_text(context: FormatContext) -> bool:
    """A character 40 times in a row, a word 10 times in a row, or 300 characters without a space."""
    words = context.text.split()
    long_words = [word for word in words if len(word) >= 40]
    if any(len(word) >= 300 or _RUN.search(word) for word in long_words):
        return True
    if not any(map(operator.eq, words, words[9:])):  # true for any ten in a row, and rarely otherwise
        return False
    return any(len(list(run)) >= 10 for _, run in groupby(words))


Rule = Callable[[FormatContext], bool]
"""True if the rule is broken; its docstring says when that is, for the docs."""

FORMAT_RULES: Registry[Rule] = Registry(
    "format rule",
    "r1searcher.format_rules",
    {
        rule.__name__: rule
        for rule in (
            unfinished,
            thinking_not_closed,
            thinking_closed_twice,
            no_answer,
            several_answers,
            text_around_answer,
            long_answer,
            misplaced_tag,
            malformed_query,
            forged_documents,
            foreign_script,
            garbled_text,
            stuck_text,
        )
    },
    Callable,
)
"""Every rule by its name. Those that come with the package are always judged."""


@cache
def judged_rules(more: tuple[str, ...] = ()) -> Mapping[str, Rule]:
    """The rules that come with the package, and those that `more` (`reward.format_rules`) names.

    Raises `InputError` for an unknown name.
    """
    return {name: FORMAT_RULES.require(name, "reward.format_rules") for name in (*FORMAT_RULES.builtin, *more)}


def broken_rules(context: FormatContext, more: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Names of the rules that the model broke, in the order of `judged_rules`; empty when the format is right."""
    return tuple(name for name, broken in judged_rules(more).items() if broken(context))


def violations(trajectory: Trajectory, max_answer_words: int = MAX_ANSWER_WORDS) -> tuple[str, ...]:
    """The broken rules of a trajectory."""
    return broken_rules(FormatContext.of(trajectory, max_answer_words))


def answer_of_trajectory(trajectory: Trajectory) -> str | None:
    """The raw final answer of the model, None if it gave none."""
    return _protocol_of(trajectory).raw_answer(trajectory.turns)


def _protocol_of(trajectory: Trajectory) -> EpisodeProtocol:
    """Raises `InputError` if it is not installed."""
    return PROTOCOLS.require(trajectory.protocol, "the trajectory's protocol")
