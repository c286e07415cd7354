"""Predictions to be scored: ours, R1-Searcher's released ones, and plain question-answer rows."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1searcher.corpora.passage import Passage
from r1searcher.episodes.protocol import DOCUMENTS, END_ANSWER, END_DOCUMENTS, END_QUERY, query_of
from r1searcher.episodes.trajectory import Author, Search, Segment, StopReason, Trajectory
from r1searcher.errors import InputError
from r1searcher.questions.rows import question_of
from r1searcher.retrieval.base import Hit
from r1searcher.rewards.format import answer_of_trajectory
from r1searcher.runs.records import from_row

ANSWER_KEYS = ("pred_ans", "prediction", "pred")
JUDGE_KEYS = ("judge", "gpt4o_output")

_BLOCK = re.compile(
    rf"(?<={re.escape(END_QUERY)})(\s*{re.escape(DOCUMENTS)}.*?{re.escape(END_DOCUMENTS)}\s*)", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer to one question.

    `answer` is raw, as it stood between the tags; None where none was given. `judge` is a judge's verdict, None where
    there is none; `judge_failed` says that a judge was asked in vain. `key` names the question, so that several
    samples of it belong together. `trajectory` is there where the row holds one.
    """

    key: str
    question: str
    golds: tuple[str, ...]
    answer: str | None
    trajectory: Trajectory | None = None
    judge: bool | None = None
    judge_failed: bool = False


def read_predictions(file: Path) -> Iterator[Prediction]:
    """Predictions of a JSONL file in its order, one at a time.

    Rows of `r1s evaluate` and of a run's trajectories, R1-Searcher's released rows (`pred_ans`, `gen_text_store`,
    `gpt4o_output`), or any row with a question, golds and `prediction`. Raises `InputError` for a missing or empty
    file and for the first row that is none of these, by its line.
    """
    number = 0
    try:
        with file.open(encoding="utf-8-sig", errors="surrogatepass") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield parse(line, f"{file}:{number}", str(number))
    except FileNotFoundError:
        raise InputError(f"there is no predictions file {file}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the predictions file {file} can't be read: {error}") from None
    if not number:
        raise InputError(f"the predictions file {file} is empty")


def parse(line: str, place: str, default_key: str) -> Prediction:
    """One row. `place` is named in errors."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{place} is not JSON: {error.msg}") from None
    if not isinstance(row, dict):
        raise InputError(f"{place} is not a JSON object")
    try:
        return of_row(row, default_key)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{place} holds no prediction: {error}") from None


def of_row(row: Mapping[str, Any], default_key: str) -> Prediction:
    """One row as read from JSON. Raises `KeyError`, `TypeError` or `ValueError` where it is none of the known ones."""
    judge, failed = _verdict(row)
    name = row.get("place", row.get("id"))
    key = default_key if name is None else f"{row.get('dataset', '')}/{name}"
    if "segments" in row:
        ours = from_row(row)
        return Prediction(key, ours.question, ours.golds, answer_of_trajectory(ours), ours, judge, failed)
    asked = question_of(row, default_key)
    answer = next((row[name] for name in ANSWER_KEYS if name in row), None)
    if answer is None and not any(name in row for name in (*ANSWER_KEYS, "gen_text_store")):
        raise ValueError(f"it has none of segments, gen_text_store, {', '.join(ANSWER_KEYS)}")
    trajectory = None
    if row.get("gen_text_store"):
        trajectory = from_text(asked.text, asked.golds, row["gen_text_store"])
        if answer is None:
            answer = answer_of_trajectory(trajectory)
    return Prediction(
        key, asked.text, asked.golds, answer if answer is None else str(answer), trajectory, judge, failed
    )


def _verdict(row: Mapping[str, Any]) -> tuple[bool | None, bool]:
    """A judge's verdict and whether one was asked in vain: anything but a clear yes or no is a failure, never a no."""
    given = [row[key] for key in JUDGE_KEYS if key in row]
    if not given:
        return None, False
    said = str(given[0]).strip().lower()
    return {"true": (True, False), "false": (False, False)}.get(said, (None, True))


def from_text(question: str, golds: tuple[str, ...], text: str) -> Trajectory:
    """A trajectory of a transcript that starts behind the prompt, with no token ids.

    A documents block right behind a query was written by the environment, everything else by the model.
    """
    segments = [Segment(Author.PROMPT, question, ())]
    searches: list[Search] = []
    pieces = _BLOCK.split(text)
    for number, piece in enumerate(pieces):
        if number % 2:
            hits = _hits(piece)
            searches.append(Search(query_of(pieces[number - 1]) or "", hits, len(hits), 0.0))
            segments.append(Segment(Author.ENVIRONMENT, piece, ()))
        elif piece or number < len(pieces) - 1:
            segments.append(Segment(Author.MODEL, piece, ()))
    return Trajectory(question, golds, tuple(segments), tuple(searches), _stop(pieces[-1]))


def _stop(last_turn: str) -> StopReason:
    """Why a transcript ends, as far as its text tells."""
    end = last_turn.rstrip()
    if end.endswith(END_ANSWER):
        return StopReason.ANSWERED
    if end.endswith(END_QUERY):
        return StopReason.SEARCHES_USED_UP if query_of(end) else StopReason.MALFORMED_QUERY
    if not end:
        return StopReason.CONTEXT_FULL
    return StopReason.ENDED


def _hits(block: str) -> tuple[Hit, ...]:
    """The passages of a rendered block: `(1)Title: T Text: …`, or `(1)T   …`."""
    inside = block.partition(DOCUMENTS)[2].rpartition(END_DOCUMENTS)[0]
    hits = []
    for piece in inside.split("\n(")[1:]:
        number, _, document = piece.partition(")")
        document = document.strip().removeprefix('"')
        if document.startswith("Title: "):
            title, _, text = document.removeprefix("Title: ").partition(" Text: ")
        else:
            title, _, text = document.partition("   ") if "   " in document else ("", "", document)
        hits.append(Hit(Passage(number, title.strip(), text.strip()), 0.0))
    return tuple(hits)
