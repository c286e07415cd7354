"""The parts that a reward is summed from. Each is a pure function of a `RewardContext`, named as in a stage's TOML.

Parameters after the context are set with `params` there:

    [[reward.parts]]
    name = "partial_credit"
    params = { wrong = 0.2 }

Most parts judge only what the model wrote and whether a search ran. The `released_*` and `search_r1_*` parts
reproduce other projects' scorers, which also read retrieved text.
"""

import difflib
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import TypeAdapter, ValidationError

from r1searcher.common.records import problem_in
from r1searcher.common.registry import Registry
from r1searcher.episodes.protocols.r1_searcher import R1_SEARCHER
from r1searcher.episodes.trajectory import Author, Trajectory
from r1searcher.errors import InputError, R1Error
from r1searcher.rewards import format as rules
from r1searcher.rewards import search_r1
from r1searcher.rewards.metrics import Scores, gold_words, has_words, normalize, score
from r1searcher.rewards.released import LLAMA, QWEN, Solution


@dataclass(frozen=True)
class RewardContext:
    """A trajectory with values that several parts use, each computed at first use."""

    trajectory: Trajectory
    max_answer_words: int = rules.MAX_ANSWER_WORDS
    format_rules: tuple[str, ...] = ()
    """Format rules of other packages that are judged too."""

    @cached_property
    def format_context(self) -> rules.FormatContext:
        return rules.FormatContext.of(self.trajectory, self.max_answer_words)

    @property
    def answer(self) -> str | None:
        """Raw text of the answer, with the spaces at its ends; None if none was given."""
        return self.format_context.parsed.answer

    @cached_property
    def scores(self) -> Scores:
        return score(self.answer, self.trajectory.gold_answers)

    @cached_property
    def violations(self) -> tuple[str, ...]:
        return rules.broken_rules(self.format_context, self.format_rules)

    @cached_property
    def written(self) -> str:
        return "".join(self.trajectory.turns)

    @cached_property
    def transcript(self) -> str:
        """Everything after the prompt, documents included: what the released reward servers and Search-R1 read.

        Raises `InputError` for a trajectory of another protocol than R1-Searcher's, whose tags they look for.
        """
        if self.trajectory.protocol != R1_SEARCHER.name:
            raise InputError(
                f"episode.protocol = {self.trajectory.protocol!r}: the reward parts released_* and search_r1_* judge "
                f"only the tags of {R1_SEARCHER.name}; choose another reward.recipe"
            )
        return "".join(s.text_before_stop for s in self.trajectory.segments if s.author is not Author.PROMPT)

    @cached_property
    def llama_solution(self) -> Solution:
        """What the released Llama servers judge."""
        return Solution.of(self.transcript, LLAMA)

    @cached_property
    def qwen_solution(self) -> Solution:
        """What the released Qwen server judges."""
        return Solution.of(self.transcript, QWEN)

    @cached_property
    def answer_in_documents(self) -> bool:
        """A normalized gold answer occurs as whole words in a line of the documents that the model was shown."""
        gold_answers = [words for gold in self.trajectory.gold_answers if (words := gold_words(gold))]
        lines = [
            line
            for segment in self.trajectory.segments
            if segment.author is Author.ENVIRONMENT
            for line in segment.text.lower().split("\n")
        ]
        return any(_occurs_in(gold, line) for gold in gold_answers for line in lines)


def _occurs_in(gold: list[str], line: str) -> bool:
    if not all(word in line for word in gold):  # normalizing removes letters and never joins words
        return False
    return has_words(normalize(line), " ".join(gold))


def retrieval(context: RewardContext) -> float:
    """1 if at least one search was run. Writing query tags alone earns nothing."""
    return float(bool(context.trajectory.searches))


def format(context: RewardContext) -> float:
    """1 if no format rule is broken."""
    return float(not context.violations)


def f1(context: RewardContext) -> float:
    """F1 of the answer, the best over the gold answers."""
    return context.scores.f1


def em(context: RewardContext) -> float:
    """1 if the normalized answer equals a normalized gold answer."""
    return context.scores.em


def cover_em(context: RewardContext) -> float:
    """1 if every word of a gold answer occurs in the answer."""
    return context.scores.cover_em


def cover_em_contiguous(context: RewardContext) -> float:
    """1 if a normalized gold answer is a substring of the normalized answer."""
    return context.scores.cover_em_contiguous


def partial_credit(context: RewardContext, wrong: float = 0.1) -> float:
    """1 for a correct answer (EM), `wrong` for another one, 0 for none (ReFT, arXiv 2401.08967, section 3.2)."""
    if context.scores.em:
        return 1.0
    return wrong if (context.answer or "").strip() else 0.0


def search_r1_em(context: RewardContext) -> float:
    """Search-R1: 1 if the last complete answer of the transcript equals a gold answer under SQuAD's normalization."""
    return float(search_r1.is_right(search_r1.answer_in(context.transcript), context.trajectory.gold_answers))


def search_r1_format(context: RewardContext, structure: float = 0.2, final: float = 0.1) -> float:
    """Search-R1 v0.3: EM softened by the format (its scripts' structure_format_score and final_format_score).

    Right and well-formed 1; right `1 - structure`; wrong and well-formed `structure`; wrong `final`; without a complete
    answer 0.
    """
    answer = search_r1.answer_in(context.transcript)
    if answer is None:
        return 0.0
    well_formed = search_r1.is_well_formed(search_r1.translate(context.transcript))
    if search_r1.is_right(answer, context.trajectory.gold_answers):
        return 1.0 if well_formed else 1.0 - structure
    return structure if well_formed else final


def released_cover_em(context: RewardContext) -> float:
    """Released Llama stage 1: 1 if the answer covers a gold answer (loosely), else -1."""
    return 1.0 if context.llama_solution.scores(context.trajectory.gold_answers).cover_em else -1.0


def released_retrieval(context: RewardContext) -> float:
    """Released Llama stage 1: 1 if query and document tags are equally many, and at least one."""
    return float(bool(context.llama_solution.searches))


def released_tags(context: RewardContext) -> float:
    """Released Llama stage 1: 1 for no second `<think>`, one `</think>` and one pair of answer tags."""
    return float(context.llama_solution.has_one_thought_and_answer)


def released_f1_llama(context: RewardContext) -> float:
    """Released Llama stage 2: F1 of the last answer in the text."""
    return context.llama_solution.scores(context.trajectory.gold_answers).f1


def released_f1_qwen(context: RewardContext) -> float:
    """Released Qwen: F1 of the last answer in the text."""
    return context.qwen_solution.scores(context.trajectory.gold_answers).f1


def released_format_llama(context: RewardContext) -> float:
    """Released Llama stage 2: 1 if tags agree, one thought and one answer, no Chinese outside documents."""
    return float(context.llama_solution.keeps_llama_format)


def released_format_qwen(context: RewardContext) -> float:
    """Released Qwen: Llama's rules; neither "assistant" nor "Assistant" anywhere, documents included; no query or
    documents tag and at most 10 words inside the answer."""
    return float(context.qwen_solution.keeps_qwen_format(context.qwen_solution.text))


def released_format_qwen_fixed(context: RewardContext) -> float:
    """`released_format_qwen`, but "assistant" is looked for only in what the model wrote."""
    return float(context.qwen_solution.keeps_qwen_format(context.written))


RewardPart = Callable[..., float]
"""A function of a `RewardContext`, with keyword parameters if it has any. Pure; returns a finite number."""

_BUILTIN: tuple[RewardPart, ...] = (
    retrieval,
    format,
    f1,
    em,
    cover_em,
    cover_em_contiguous,
    partial_credit,
    search_r1_em,
    search_r1_format,
    released_cover_em,
    released_retrieval,
    released_tags,
    released_f1_llama,
    released_f1_qwen,
    released_format_llama,
    released_format_qwen,
    released_format_qwen_fixed,
)
PARTS: Registry[RewardPart] = Registry(
    "reward part", "r1searcher.reward_parts", {part.__name__: part for part in _BUILTIN}, Callable
)


def part_with(name: str, params: Mapping[str, Any]) -> Callable[[RewardContext], float]:
    """A part with its parameters. It raises `R1Error` if it fails or does not return a finite number.

    Raises `InputError` for an unknown part, and for parameters that it does not take or that have the wrong type.
    """
    part = PARTS.require(name, "reward.parts")
    _check_params(name, part, params)

    def value(context: RewardContext) -> float:
        try:
            result = float(part(context, **params))
        except R1Error:
            raise
        except Exception as error:  # another package's function may raise anything
            raise R1Error(f"the reward part {name!r} failed: {type(error).__name__}: {error}") from error
        if not math.isfinite(result):
            raise R1Error(f"the reward part {name!r} returned {result}: it must be a finite number")
        return result

    return value


def _check_params(name: str, part: RewardPart, params: Mapping[str, Any]) -> None:
    """Compare `params` with the function's signature and annotations. Raises `InputError`."""
    where = f"reward.parts: {name!r}"
    try:
        _, *accepted = inspect.signature(part, eval_str=True).parameters.values()
    except (TypeError, ValueError, NameError) as error:
        raise InputError(f"{where} is not a function of a RewardContext ({error}): fix its package") from None
    known = [parameter.name for parameter in accepted]
    for key in params:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"it takes {', '.join(known) or 'none'}"
            raise InputError(f"{where} has no parameter {key[:100]!r}: {hint}")
    for parameter in accepted:
        if parameter.name in params:
            annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
            _check_param(f"{where}: params.{parameter.name}", annotation, params[parameter.name])
        elif parameter.default is parameter.empty:
            raise InputError(f"{where}: params.{parameter.name} is not set: add params = {{ {parameter.name} = … }}")


def _check_param(where: str, annotation: Any, value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{where} = {value}: must be a finite number")
    try:
        TypeAdapter(annotation).validate_python(value, strict=True)
    except ValidationError as error:
        raise InputError(f"{where} = {repr(value)[:80]}: {problem_in(error)}") from None
