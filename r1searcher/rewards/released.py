"""R1-Searcher's released reward servers (`train/reward_server_*.py`), by their rules on the whole text.

A server judges everything after the prompt, retrieved documents included. Its tokenizer's end token is at the end
of that text, so an answer that is never closed ends with it. If the text repeats the end of the prompt, only what
follows the last repetition counts.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from r1searcher.episodes.protocols.r1_searcher import R1_SEARCHER
from r1searcher.rewards.metrics import Scores, score

TAGS = R1_SEARCHER.tags
ASSISTANT = ("Assistant", "assistant")
MAX_ANSWER_WORDS = 10

_EQUALLY_OFTEN = (
    TAGS.query,
    TAGS.end_query,
    TAGS.documents,
    f"{TAGS.documents}\n",
    f"{TAGS.documents}\n(1)",
    TAGS.end_documents,
    f"{TAGS.end_documents}\n\n",
)
_NOT_IN_ANSWER = (TAGS.query.strip("<|>"), TAGS.documents.strip("<|>"))
_BLOCK = re.compile(f"{re.escape(TAGS.documents)}.*?{re.escape(TAGS.end_documents)}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Server:
    """A server's model-specific strings: the end of the prompt, and the end-of-sequence token."""

    prompt_end: str
    end_token: str


LLAMA = Server(f"<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n{TAGS.think}", "<|eot_id|>")
QWEN = Server(f"\nAssistant: {TAGS.think}", "<|endoftext|>")


@dataclass(frozen=True)
class Solution:
    """The text that a server judges, and what it finds there."""

    text: str

    @classmethod
    def of(cls, transcript: str, server: Server) -> "Solution":
        """The solution in a transcript: everything that followed the prompt."""
        kept = re.sub(f"(?:{re.escape(server.end_token)})+$", "", transcript.rpartition(server.prompt_end)[2])
        return cls(kept + server.end_token)

    @cached_property
    def answer(self) -> str | None:
        """What follows the last `<answer>`, up to an `</answer>` if there is one; None if either tag is missing."""
        if TAGS.answer not in self.text or TAGS.end_answer not in self.text:
            return None
        return self.text.rpartition(TAGS.answer)[2].partition(TAGS.end_answer)[0].strip()

    @cached_property
    def searches(self) -> int | None:
        """The number of queries and document blocks; None if the seven counts disagree."""
        counts = {self.text.count(piece) for piece in _EQUALLY_OFTEN}
        return counts.pop() if len(counts) == 1 else None

    @property
    def has_one_thought_and_answer(self) -> bool:
        once = (TAGS.end_think, TAGS.answer, TAGS.end_answer)
        return TAGS.think not in self.text and all(self.text.count(tag) == 1 for tag in once)

    @property
    def has_chinese(self) -> bool:
        """A CJK ideograph (U+4E00 to U+9FFF) outside complete document blocks."""
        if self.text.isascii():
            return False
        return any("\u4e00" <= character <= "\u9fff" for character in _BLOCK.sub("", self.text))

    @property
    def has_short_plain_answer(self) -> bool:
        answer = self.answer or ""
        return len(answer.split()) <= MAX_ANSWER_WORDS and not any(name in answer for name in _NOT_IN_ANSWER)

    @property
    def keeps_llama_format(self) -> bool:
        return self.searches is not None and self.has_one_thought_and_answer and not self.has_chinese

    def keeps_qwen_format(self, searched_for_assistant: str) -> bool:
        """The server looks for "assistant" in the whole text; `released-qwen-fixed` only in what the model wrote."""
        return (
            self.keeps_llama_format
            and self.has_short_plain_answer
            and not any(word in searched_for_assistant for word in ASSISTANT)
        )

    def scores(self, gold_answers: Sequence[str]) -> Scores:
        return score(self.answer, gold_answers)
