"""Search-R1's scorers (`verl/utils/reward_score/qa_em.py`, `qa_em_format.py`) on a translated transcript.

Search-R1 closes its thinking before every search and opens it again after the results. Here one thought spans all
searches, and the prompt has opened it. `docs/rewards.md` holds the translation. Its scorers read retrieved text too.
"""

import re
from collections.abc import Sequence

from r1searcher.episodes.protocol import DOCUMENTS, END_DOCUMENTS, END_QUERY, QUERY, THINK
from r1searcher.rewards.metrics import delete_words

TRANSLATION = (
    (QUERY, "</think><search>"),
    (END_QUERY, "</search>"),
    (DOCUMENTS, "<information>"),
    (END_DOCUMENTS, "</information><think>"),
)
"""Our tags, and what stands for them in Search-R1's protocol. `<think>` and `<answer>` are the same in both."""

_ANSWER = re.compile("<answer>(.*?)</answer>", re.DOTALL)
_TAG = re.compile("(</?(?:think|search|information|answer)>)")
_SEQUENCE = re.compile(
    "(?:<think></think><search></search><information></information>)*<think></think><answer></answer>"
)


def translate(transcript: str) -> str:
    """A transcript that starts after the prompt's `<think>`, in Search-R1's tags."""
    for ours, theirs in TRANSLATION:
        transcript = transcript.replace(ours, theirs)
    return THINK + transcript


def answer_in(transcript: str) -> str | None:
    """The last complete answer, stripped; None where there is none. The tags are the same in both protocols."""
    found = _ANSWER.findall(transcript)
    return found[-1].strip() if found else None


def is_right(answer: str | None, gold_answers: Sequence[str]) -> bool:
    """Exact match with any gold under SQuAD's normalization, which deletes punctuation."""
    if answer is None:
        return False
    words = delete_words(answer)
    return any(delete_words(gold) == words for gold in gold_answers)


def is_well_formed(translated: str) -> bool:
    """Tags come in Search-R1's order, and only blanks stand between a closing tag and the next opening one."""
    pieces = _TAG.split(translated)
    tags = pieces[1::2]
    if not _SEQUENCE.fullmatch("".join(tags)):
        return False
    between = [pieces[0], *(text for tag, text in zip(tags, pieces[2::2], strict=True) if tag.startswith("</"))]
    return not any(text.strip() for text in between)
