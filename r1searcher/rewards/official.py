"""Each dataset's own metrics, as its authors' program computes them, by the dataset's name.

R1-Searcher's metrics (`rewards.metrics`) use the same formulas with another normalization: they replace punctuation
with spaces where most of these delete it. `docs/evaluation.md` has the table. All values are in 0..1; the best gold
answer counts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from r1searcher.rewards.metrics import CLOSED, blank_words, delete_words, deleted_gold_words, f1_of_words
from r1searcher.rewards.search_r1 import is_right

EM, F1, ACCURACY = "official_em", "official_f1", "official_accuracy"
OFFICIAL_METRICS = (EM, F1, ACCURACY)

Metrics = Callable[[str, Sequence[str]], dict[str, float]]

_blanked_gold = lru_cache(maxsize=1 << 17)(blank_words)


def squad_with_closed_answers(answer: str, gold_answers: Sequence[str]) -> dict[str, float]:
    """EM, F1. Punctuation is deleted; F1 is 0 if one side is yes, no or noanswer and the other differs."""
    words = delete_words(answer)
    normal = " ".join(words)
    em = f1 = 0.0
    for gold in map(deleted_gold_words, gold_answers):
        if gold == words:
            em = 1.0
        elif normal in CLOSED or " ".join(gold) in CLOSED:
            continue
        f1 = max(f1, f1_of_words(words, gold))
    return {EM: em, F1: f1}


def musique(answer: str, gold_answers: Sequence[str]) -> dict[str, float]:
    """EM, F1. Punctuation is deleted; no rule for yes and no; F1 is 1 if both sides are empty."""
    words = delete_words(answer)
    normal_golds = list(map(deleted_gold_words, gold_answers))
    f1 = max((1.0 if gold == words else f1_of_words(words, gold) for gold in normal_golds), default=0.0)
    return {EM: float(words in normal_golds), F1: f1}


def triviaqa(answer: str, gold_answers: Sequence[str]) -> dict[str, float]:
    """EM, F1. Punctuation becomes spaces; no rule for yes and no."""
    words = blank_words(answer)
    normal_golds = list(map(_blanked_gold, gold_answers))
    return {EM: float(words in normal_golds), F1: max((f1_of_words(words, gold) for gold in normal_golds), default=0.0)}


def exact_match(answer: str, gold_answers: Sequence[str]) -> dict[str, float]:
    """EM. Punctuation is deleted."""
    return {EM: float(is_right(answer, gold_answers))}


def popqa(answer: str, gold_answers: Sequence[str]) -> dict[str, float]:
    """Accuracy: a gold answer occurs in the raw answer unchanged, in lower case or capitalized."""
    right = any(form in answer for gold in gold_answers for form in (gold, gold.lower(), gold.capitalize()))
    return {ACCURACY: float(right)}


@dataclass(frozen=True, slots=True)
class OfficialScorer:
    """A dataset's own scorer: its source, and which of `OFFICIAL_METRICS` it computes."""

    about: str
    program: str
    repository: str
    names: tuple[str, ...]
    metrics: Metrics

    def __call__(self, answer: str | None, gold_answers: Sequence[str]) -> dict[str, float]:
        """The metrics of an answer; all 0 if it is missing, as in the programs."""
        if answer is None:
            return dict.fromkeys(self.names, 0.0)
        return self.metrics(answer, gold_answers)

    def __str__(self) -> str:
        return f"{self.program} of {self.repository} ({self.about})"


_BOTH = (EM, F1)
SCORERS: Mapping[str, OfficialScorer] = {
    "hotpotqa": OfficialScorer(
        "HotpotQA", "hotpot_evaluate_v1.py", "hotpotqa/hotpot", _BOTH, squad_with_closed_answers
    ),
    "2wikimultihopqa": OfficialScorer(
        "2WikiMultihopQA",
        "2wikimultihop_evaluate_v1.1.py",
        "Alab-NII/2wikimultihop",
        _BOTH,
        squad_with_closed_answers,
    ),
    "musique": OfficialScorer("MuSiQue", "metrics/answer.py", "StonyBrookNLP/musique", _BOTH, musique),
    "triviaqa": OfficialScorer(
        "TriviaQA", "evaluation/triviaqa_evaluation.py", "mandarjoshi90/triviaqa", _BOTH, triviaqa
    ),
    "nq": OfficialScorer("NQ-open", "dpr/data/qa_validation.py", "facebookresearch/DPR", (EM,), exact_match),
    "popqa": OfficialScorer("PopQA", "run_model.py", "AlexTMallen/adaptive-retrieval", (ACCURACY,), popqa),
    "bamboogle": OfficialScorer(
        "Bamboogle's authors published no scorer",
        "flashrag/evaluator/metrics.py",
        "RUC-NLPIR/FlashRAG",
        _BOTH,
        squad_with_closed_answers,
    ),
}
