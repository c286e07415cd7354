"""Predictions to be scored: ours, R1-Searcher's released ones, and plain question-answer rows."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import ValidationError

from r1searcher.common.files import parse_json, read_lines
from r1searcher.common.records import Record
from r1searcher.episodes.protocol import EpisodeProtocol, Query
from r1searcher.episodes.protocols.r1_searcher import R1_SEARCHER
from r1searcher.episodes.trajectory import Author, Search, Segment, StopReason, Trajectory
from r1searcher.errors import InputError
from r1searcher.questions.rows import question_of
from r1searcher.questions.scorers import official_scorer
from r1searcher.report.predictions import Prediction, dataset_of, key_of, of_trajectory, verdict_of
from r1searcher.retrieval.base import Hit
from r1searcher.rewards.format import answer_of_trajectory
from r1searcher.runs.records import Str, TrajectoryRow, one_of, trajectory_files, trajectory_of

ANSWER_KEYS = ("pred_ans", "prediction", "pred")

OptionalText = Annotated[Any, one_of((str, type(None)), "text")]
Scalar = Annotated[Any, one_of((str, int, float, type(None)), "text or a number")]
Messages = Annotated[Any, one_of((str, list, type(None)), "text or a list of messages")]


S = TypeVar("S", bound=Record)


class _Row(Record):
    """Optional keys of every kind of row, whose types must be right."""

    id: Scalar = None
    index: Scalar = None
    dataset: OptionalText = None
    data_source: OptionalText = None


class _Played(_Row, TrajectoryRow):
    """A row of `r1s evaluate` or of a run's trajectories."""

    stop: Str


class _Answered(_Row):
    """A row that holds an answer, or R1-Searcher's transcript with one."""

    prompt: Messages = None
    pred_ans: Scalar = None
    prediction: Scalar = None
    pred: Scalar = None
    gen_text_store: OptionalText = None


def read_predictions(file: Path) -> Iterator[Prediction]:
    """Predictions of a JSONL file in its order, one at a time; of a step's folder in a run, those of all its files.

    Rows of `r1s evaluate` and of a run's trajectories, R1-Searcher's released rows (`pred_ans`, `gen_text_store`,
    `gpt4o_output`), or any row with a question, gold answers and `prediction`. Raises `InputError` for a missing or
    empty file and for the first row that is none of these, by its line.
    """
    if os.path.isdir(file) and (parts := trajectory_files(file)):
        for part in parts:
            yield from read_predictions(part)
        return
    empty, named = True, named_dataset(file)
    for number, line in prediction_lines(file):
        empty = False
        yield parse(line, f"{file}:{number}", str(number), named)
    if empty:
        raise InputError(f"the predictions file {file} is empty")


def prediction_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Numbers and texts of the lines that are not empty."""
    for number, line in enumerate(read_lines(file, "the predictions file"), start=1):
        if line.strip():
            yield number, line


def named_dataset(file: Path) -> str:
    """The name of a file that begins with a known dataset's ("hotpotqa_qwen"), else ""."""
    return file.stem if official_scorer(file.stem) else ""


def parse(line: str, place: str, default_key: str, default_dataset: str = "") -> Prediction:
    """One row. `place` is named in errors."""
    try:
        row = parse_json(line)
    except ValueError as error:
        reason = str(error)
        raise InputError(f"{place} is {reason if reason.startswith('not') else f'not JSON: {reason}'}") from None
    if not isinstance(row, dict):
        raise InputError(f"{place} is not a JSON object")
    try:
        return of_row(row, default_key, default_dataset)
    except ValueError as error:
        raise InputError(f"{place} holds no prediction: {error}") from None


def of_row(row: Mapping[str, Any], default_key: str, default_dataset: str = "") -> Prediction:
    """One row as read from JSON. Raises `ValueError` with the reason if it is not of a known kind."""
    if "segments" in row:
        checked = _checked(row, _Played)
        if checked.stop not in tuple(StopReason):
            raise ValueError(f"stop: must be {', '.join(repr(reason.value) for reason in StopReason)}")
        ours = trajectory_of(checked)
        if any(segment.overhang > len(segment.text) for segment in ours.segments):
            raise ValueError("segments: an overhang is longer than its text")
        return of_trajectory(ours, row, default_key, default_dataset)
    _checked(row, _Answered)
    if isinstance(prompt := row.get("prompt"), list) and not all(isinstance(message, dict) for message in prompt):
        raise ValueError("prompt must be a list of messages")
    asked = question_of(row, default_key)
    given = next((row[name] for name in ANSWER_KEYS if name in row), None)
    if given is None and not any(name in row for name in (*ANSWER_KEYS, "gen_text_store")):
        raise ValueError(f"it has none of segments, gen_text_store, {', '.join(ANSWER_KEYS)}")
    answer = None if given is None else str(given)
    trajectory = None
    if row.get("gen_text_store"):
        trajectory = from_text(asked.text, asked.gold_answers, row["gen_text_store"])
        if answer is None:
            answer = answer_of_trajectory(trajectory)
    judge, failed = verdict_of(row)
    key, dataset = key_of(row, default_key), dataset_of(row, default_dataset)
    return Prediction(key, asked.text, asked.gold_answers, answer, trajectory, judge, failed, dataset)


def _checked(row: Mapping[str, Any], shape: type[S]) -> S:
    try:
        return shape.model_validate(row)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        said = {"model_type": "must be an object", "missing": "is missing"}.get(first["type"], first["msg"])
        raise ValueError(f"{'.'.join(map(str, first['loc']))} {said.replace('Input should', 'must')}") from None


def from_text(
    question: str, gold_answers: tuple[str, ...], text: str, protocol: EpisodeProtocol = R1_SEARCHER
) -> Trajectory:
    """A trajectory of a transcript that starts after the prompt, with no token ids, as `protocol` reads it."""
    segments = [Segment(Author.PROMPT, question, ())]
    searches: list[Search] = []
    for part in protocol.read_transcript(text):
        if part.author is Author.ENVIRONMENT:
            asked = protocol.read_turn(segments[-1].text)
            hits = tuple([Hit(passage, 0.0) for passage in part.found])
            searches.append(Search(asked.text if isinstance(asked, Query) else "", hits, len(hits), 0.0))
        segments.append(Segment(part.author, part.text, ()))
    last_turn = segments[-1].text if segments[-1].author is Author.MODEL else ""
    return Trajectory(
        question, gold_answers, tuple(segments), tuple(searches), _stop(last_turn, protocol), protocol.name
    )


def _stop(last_turn: str, protocol: EpisodeProtocol) -> StopReason:
    """Why a transcript ends, as far as its text tells."""
    end = last_turn.rstrip()
    if not end:
        return StopReason.CONTEXT_FULL
    asked = protocol.read_turn(end, ended=not end.endswith(tuple(protocol.stop_strings)))
    if isinstance(asked, Query):
        return StopReason.SEARCH_LIMIT
    # Who wrote a documents tag at the end is not recorded in a text.
    return StopReason.EOS_WITHOUT_ANSWER if asked is StopReason.FORGED_DOCUMENTS else asked
