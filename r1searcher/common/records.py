"""Reading our own files: one model per file, and one sentence if a file does not match its model.

The folder of a run or an evaluation may have been edited, truncated by a full disk or copied in part. Code that reads
one of its files names a `Record` for it; a mismatch is an `InputError` with the file, the location and the fix.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from r1searcher.common.files import parse_json, read_bytes, read_rows
from r1searcher.errors import InputError


class Record(BaseModel):
    """A JSON object in one of our files. Undeclared keys are kept: later versions may write more."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")


R = TypeVar("R", bound=Record)


def first_of(error: ValidationError) -> tuple[str, str]:
    """Location and message of the first problem: ("searches.0.hits", "Input should be a valid list")."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return ".".join(map(str, first["loc"])), first["msg"]


def problem_in(error: ValidationError) -> str:
    """The first problem, with its location: "searches.0.hits: must be a valid list"."""
    place, message = first_of(error)
    return f"{place}: {as_demand(message)}" if place else as_demand(message)


def as_demand(message: str) -> str:
    """Pydantic's "Input should be a valid integer" as "must be a valid integer"."""
    message = message.replace("Input should", "must", 1)
    return message[0].lower() + message[1:]


def read_record(path: Path, model: type[R], remedy: str) -> R:
    """The JSON object in `path`. Raises `InputError` with `remedy` if it is damaged or missing."""
    data = read_bytes(path, "the file")
    try:
        return model.model_validate(parse_json(data))
    except ValidationError as error:
        raise InputError(f"{path} is damaged ({problem_in(error)}): {remedy}") from None
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}): {remedy}") from None


def read_record_if_there(path: Path, model: type[R], remedy: str) -> R | None:
    """Like `read_record`, or None if the file does not exist."""
    return read_record(path, model, remedy) if path.exists() else None


def as_record(row: dict[str, Any], model: type[R], place: str) -> R:
    """Validates a row of one of our JSONL files. `place` names it in the `InputError`."""
    try:
        return model.model_validate(row)
    except ValidationError as error:
        raise InputError(f"{place} is damaged ({problem_in(error)}): restore the file, or remove that line") from None


def checked_rows(path: Path, model: type[Record]) -> Iterator[dict[str, Any]]:
    """The unchanged rows of one of our JSONL files, each validated against its model. Raises `InputError`."""
    for number, row in enumerate(read_rows(path), 1):
        as_record(row, model, f"{path}: row {number}")
        yield row


def read_records(path: Path, model: type[R]) -> Iterator[R]:
    """The validated rows of one of our JSONL files; none if the file does not exist. Raises `InputError`."""
    for number, row in enumerate(read_rows(path), 1):
        yield as_record(row, model, f"{path}: row {number}")
