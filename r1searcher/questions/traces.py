"""Traces: examples for the SFT, one per line of a JSONL file: an episode, or a prompt and its response."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from r1searcher.common.files import parse_json, read_text, split_lines, write_rows
from r1searcher.episodes.trajectory import Author
from r1searcher.errors import InputError
from r1searcher.questions.rows import check_characters

Trace = tuple[tuple[Author, str], ...]
"""The segments of an example episode: each author with its text. The model learns to write its own segments alone."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A user's message and the response that the model learns; `questions.exchange` renders it for a model."""

    prompt: str
    response: str


_Text = Annotated[str, AfterValidator(check_characters)]


class _Segments(BaseModel):
    """A row with an episode."""

    segments: tuple[tuple[Author, _Text], ...]


class _Exchange(BaseModel):
    """A row with a prompt and its response."""

    model_config = ConfigDict(strict=True)

    prompt: Annotated[_Text, Field(min_length=1)]
    response: Annotated[_Text, Field(min_length=1)]


def read_traces(file: Path) -> Iterator[Trace | Exchange]:
    """The examples of a file, in its order: mix kinds of examples in the file.

    Raises `InputError` for a file that cannot be read and for the first line that is not a trace.
    """
    for number, line in enumerate(split_lines(read_text(file, "data.traces: the file")), start=1):
        if not line.strip():
            continue
        try:
            yield _trace(line)
        except ValueError as error:  # pydantic's is one too
            reason = f" ({error})" if not isinstance(error, ValidationError) else ""
            raise InputError(
                f"data.traces: {file}:{number} is not a trace{reason}; a row is "
                '{"segments": [["prompt", "…"], ["model", "…"], ["environment", "…"], …]} or '
                '{"prompt": "…", "response": "…"}'
            ) from None


def _trace(line: str) -> Trace | Exchange:
    row = parse_json(line)
    if isinstance(row, dict) and "segments" not in row:
        exchange = _Exchange.model_validate(row)
        return Exchange(exchange.prompt, exchange.response)
    segments = _Segments.model_validate(row).segments
    if not any(author is Author.MODEL and text for author, text in segments):
        raise ValueError("it has no text of the model")
    if next(author for author, text in segments if text) is Author.MODEL:
        raise ValueError("there is no prompt before the text of the model")
    return segments


def write_traces(file: Path, traces: Iterable[tuple[str, Trace]]) -> None:
    """Write (id of the question, trace) pairs, one JSON object per line. Raises `FileError`."""
    write_rows(file, ({"id": id_, "segments": segments} for id_, segments in traces))
