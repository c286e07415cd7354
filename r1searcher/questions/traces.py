"""Traces: example episodes for the SFT, one per line of a JSONL file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ValidationError

from r1searcher.common.files import parse_json, read_text, split_lines
from r1searcher.episodes.trajectory import Author
from r1searcher.errors import InputError
from r1searcher.questions.rows import check_characters

SftRow = dict[str, str]
"""`input`, and the `output` that the model should write after it."""


class _Trace(BaseModel):
    """A row of a traces file."""

    segments: list[tuple[Author, Annotated[str, AfterValidator(check_characters)]]]


def read_traces(file: Path) -> Iterator[SftRow]:
    """One row per segment that the model should write: everything before it as `input`, the segment as `output`.

    So a document is never an output and never trained. Rows stay in the order of the traces, so mix the traces.
    Raises `InputError` for a file that cannot be read and for the first line that is not a trace.
    """
    for number, line in enumerate(split_lines(read_text(file, "data.traces: the file")), start=1):
        if not line.strip():
            continue
        try:
            trace = _Trace.model_validate(parse_json(line))
        except ValueError as error:  # pydantic's is one too
            reason = f" ({error})" if not isinstance(error, ValidationError) else ""
            raise InputError(
                f"data.traces: {file}:{number} is not a trace{reason}; a row is "
                '{"segments": [["prompt", "…"], ["model", "…"], ["environment", "…"], …]}'
            ) from None
        before = ""
        for author, text in trace.segments:
            if author is Author.MODEL:
                yield {"input": before, "output": text}
            before += text
