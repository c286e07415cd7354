"""R1-Searcher's protocol (arXiv 2503.05592, section 3).

The prompt opens the thinking. A right trajectory reads `thought <|begin_of_query|> keywords <|end_of_query|>` for each
search and then `thought </think> <answer> … </answer>`: one thought spans all searches.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib import resources
from typing import NamedTuple

from r1searcher.corpora.passage import Passage
from r1searcher.episodes.protocol import Document, EpisodeProtocol, ParsedTurns, Query, TranscriptPart
from r1searcher.episodes.trajectory import Author, StopReason

NOTHING_FOUND = "No passage matched the query."


class Tags(NamedTuple):
    """R1-Searcher's tags by their meaning."""

    think: str = "<think>"
    end_think: str = "</think>"
    answer: str = "<answer>"
    end_answer: str = "</answer>"
    query: str = "<|begin_of_query|>"
    end_query: str = "<|end_of_query|>"
    documents: str = "<|begin_of_documents|>"
    end_documents: str = "<|end_of_documents|>"


TAGS = Tags()
_BLOCK = re.compile(
    rf"(?<={re.escape(TAGS.end_query)})(\s*{re.escape(TAGS.documents)}.*?{re.escape(TAGS.end_documents)}\s*)", re.DOTALL
)


class R1Searcher(EpisodeProtocol):
    """Tags for thinking, queries, documents and the answer. Documents that the model begins itself end the episode."""

    name = "r1-searcher"
    tags: Tags = TAGS
    scored_tags = (
        "<search>",
        "</search>",
        "<information>",
        "</information>",
    )  # by Search-R1's scorers, in documents too
    stop_strings = (TAGS.end_query, TAGS.end_answer, TAGS.documents)
    opening = TAGS.think

    @cached_property
    def prompts(self) -> Mapping[str, str]:
        """`base` for a base model, `chat` for one that follows instructions."""
        folder = resources.files("r1searcher.episodes.protocols") / "r1_searcher_prompts"
        return {name: (folder / f"{name}.txt").read_text("utf-8") for name in ("base", "chat")}

    def read_turn(self, text: str, ended: bool = False) -> Query | StopReason:
        if ended:
            return StopReason.EOS_WITHOUT_ANSWER
        if text.endswith(TAGS.end_answer):
            return StopReason.ANSWERED
        if text.endswith(TAGS.documents):
            return StopReason.FORGED_DOCUMENTS
        if text.endswith(TAGS.end_query):
            query = _query_in(text)
            return Query(query) if query else StopReason.MALFORMED_QUERY
        return StopReason.EOS_WITHOUT_ANSWER

    def parse(self, turns: Sequence[str]) -> ParsedTurns:
        text = "\n".join(turns)  # joined by something, so that no tag can form across two turns
        last = turns[-1] if turns else ""
        thought, _, conclusion = last.partition(TAGS.end_think)
        before, opened, _ = conclusion.partition(TAGS.answer)
        _, closed, after = conclusion.rpartition(TAGS.end_answer)
        answer = _raw_answer(last)
        asks = TAGS.query in last or TAGS.end_query in last
        return ParsedTurns(
            answer=answer,
            answer_out_of_place=_raw_answer(conclusion) is None,
            thinking_not_closed=TAGS.end_think not in last,
            thinking_closed_twice=text.count(TAGS.end_think) > 1,
            several_answers=text.count(TAGS.answer) > 1 or text.count(TAGS.end_answer) > 1,
            text_around_answer=bool(opened and before.strip()) or bool(closed and after.strip()),
            misplaced_tag=(
                TAGS.think in text
                or any(tag in (answer or "") for tag in TAGS)
                or any(tag in turn for turn in turns[:-1] for tag in (TAGS.end_think, TAGS.answer, TAGS.end_answer))
                or TAGS.answer in thought
                or TAGS.query in conclusion
            ),
            malformed_query=any(_query_in(turn) is None for turn in turns[:-1]) or (asks and _query_in(last) is None),
            forged_documents=TAGS.documents in text or TAGS.end_documents in text,
        )

    def raw_answer(self, turns: Sequence[str]) -> str | None:
        return _raw_answer(turns[-1]) if turns else None

    def render(self, documents: Sequence[Document]) -> str:
        lines = [f"({number})Title: {title} Text: {text}" for number, (title, text) in enumerate(documents, start=1)]
        return "\n".join(["\n", TAGS.documents, *(lines or [NOTHING_FOUND]), TAGS.end_documents, "\n"])

    def read_transcript(self, text: str) -> list[TranscriptPart]:
        """A documents block right after a query was written by the environment, everything else by the model."""
        pieces = _BLOCK.split(text)
        return [
            TranscriptPart(Author.ENVIRONMENT, piece, _passages(piece))
            if number % 2
            else TranscriptPart(Author.MODEL, piece)
            for number, piece in enumerate(pieces)
            if piece or number < len(pieces) - 1
        ]

    def write_query(self, thought: str, query: str) -> str:
        return f"{thought}\n{TAGS.query} {query}{TAGS.end_query}"

    def write_answer(self, thought: str, answer: str) -> str:
        return f"{thought}{TAGS.end_think}{_answer_block(answer)}"

    def broken_answers(self, thought: str, answer: str) -> tuple[str, ...]:
        """Thinking that is never closed, and thinking that is closed twice."""
        twice = f"{TAGS.end_think}\n\n{TAGS.end_think}"
        return tuple(f"{thought}{end}{_answer_block(answer)}" for end in ("", twice))


R1_SEARCHER = R1Searcher()


def _query_in(turn: str) -> str | None:
    """The query that a turn closes; None if it is empty, never opened, or opened more than once."""
    if not turn.endswith(TAGS.end_query) or turn.count(TAGS.query) != 1 or turn.count(TAGS.end_query) != 1:
        return None
    query = " ".join(turn.partition(TAGS.query)[2].removesuffix(TAGS.end_query).split())
    return query or None


def _raw_answer(turn: str) -> str | None:
    """The text of a turn's last closed answer with its outer spaces; None if there is none."""
    before, closed, _ = turn.rpartition(TAGS.end_answer)
    _, opened, answer = before.rpartition(TAGS.answer)
    return answer if closed and opened else None


def _answer_block(answer: str) -> str:
    return f"\n\n{TAGS.answer} {answer}{TAGS.end_answer}"


def _passages(block: str) -> tuple[Passage, ...]:
    """The passages of a rendered block: `(1)Title: T Text: …`, or `(1)T   …` as in R1-Searcher's released files."""
    inside = block.partition(TAGS.documents)[2].rpartition(TAGS.end_documents)[0]
    passages = []
    for piece in inside.split("\n(")[1:]:
        number, _, document = piece.partition(")")
        document = document.strip().removeprefix('"')
        if document.startswith("Title: "):
            title, _, text = document.removeprefix("Title: ").partition(" Text: ")
        else:
            title, _, text = document.partition("   ") if "   " in document else ("", "", document)
        passages.append(Passage(number, title.strip(), text.strip()))
    return tuple(passages)
