"""Search-R1's scorers (`verl/utils/reward_score/qa_em.py`, `qa_em_format.py`) on a translated transcript.

Search-R1 closes its thinking before every search and opens it again after the results. Here one thought spans all
searches, and the prompt has opened it. `docs/rewards.md` has the translation. Its scorers read retrieved text too.
"""

import re
from collections.abc import Sequence

from r1searcher.episodes.protocols.r1_searcher import R1_SEARCHER
from r1searcher.rewards.metrics import delete_words, deleted_gold_words

TAGS = R1_SEARCHER.tags
SEARCH, END_SEARCH = "<search>", "</search>"
INFORMATION, END_INFORMATION = "<information>", "</information>"

TRANSLATION = (
    (TAGS.query, TAGS.end_think + SEARCH),
    (TAGS.end_query, END_SEARCH),
    (TAGS.documents, INFORMATION),
    (TAGS.end_documents, END_INFORMATION + TAGS.think),
)
"""Our tags and their equivalents in Search-R1's protocol. `<think>` and `<answer>` are the same in both."""

_ANSWER = re.compile(f"{TAGS.answer}(.*?){TAGS.end_answer}", re.DOTALL)
_TAG = re.compile("(</?(?:think|search|information|answer)>)")
_THOUGHT = TAGS.think + TAGS.end_think
_SEQUENCE = re.compile(
    f"(?:{_THOUGHT}{SEARCH}{END_SEARCH}{INFORMATION}{END_INFORMATION})*{_THOUGHT}{TAGS.answer}{TAGS.end_answer}"
)


def translate(transcript: str) -> str:
    """A transcript that starts after the prompt's `<think>`, in Search-R1's tags."""
    for ours, theirs in TRANSLATION:
        transcript = transcript.replace(ours, theirs)
    return TAGS.think + transcript


def answer_in(transcript: str) -> str | None:
    """The last complete answer, stripped; None if there is none. The tags are the same in both protocols."""
    found = _ANSWER.findall(transcript)
    return found[-1].strip() if found else None


def is_right(answer: str | None, gold_answers: Sequence[str]) -> bool:
    """Exact match with any gold answer under SQuAD's normalization, which deletes punctuation."""
    if answer is None:
        return False
    words = delete_words(answer)
    return any(deleted_gold_words(gold) == words for gold in gold_answers)


def is_well_formed(translated: str) -> bool:
    """Tags come in Search-R1's order, and only white space is between a closing tag and the next opening one."""
    pieces = _TAG.split(translated)
    tags = pieces[1::2]
    if not _SEQUENCE.fullmatch("".join(tags)):
        return False
    between = [pieces[0], *(text for tag, text in zip(tags, pieces[2::2], strict=True) if tag.startswith("</"))]
    return not any(text.strip() for text in between)
