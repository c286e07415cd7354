"""A Parquet table with the columns of `jsonl` or `paragraphs`."""

from collections.abc import Iterator
from typing import IO, Any

from r1searcher.common.files import json_problem
from r1searcher.corpora.detect import QUESTION_KEYS, problem_of_keys
from r1searcher.corpora.formats import CorpusFormat, jsonl, paragraphs
from r1searcher.corpora.json_rows import ID_KEYS
from r1searcher.corpora.rows import MAX_ROW_BYTES, TOO_LONG, BadRow, BrokenFileError, Items, UnusableShapeError
from r1searcher.errors import InputError

_COLUMNS = (*ID_KEYS, "title", "text", "contents", "context", "paragraphs", "metadata")
_BATCH = 4096


def read(file: IO[bytes], before: int = 0, /) -> Items:
    """Raises `UnusableShapeError` if the columns are not those of passages."""
    table = _opened(file)
    _check_columns(table.schema_arrow)
    number = 0
    for batch in _batches(table):
        for row in batch:
            number += 1
            passages_of = paragraphs.passages_of if paragraphs.has_paragraphs(row) else jsonl.passages_of
            try:
                if sum(len(value) for value in row.values() if isinstance(value, str)) > MAX_ROW_BYTES:
                    raise ValueError(TOO_LONG)
                yield from passages_of(row, before + number)
            except ValueError as error:
                yield BadRow(number, json_problem(error), str({key: str(row[key])[:80] for key in row})[:200])


def _check_columns(schema: Any) -> None:
    """Raises `UnusableShapeError` for an Arrow schema of neither passages nor questions that carry their paragraphs."""
    kinds = {field.name: str(field.type) for field in schema}
    nested = any("sentences" in kinds.get(name, "") for name in ("context", "metadata"))
    if nested or "list" in kinds.get("paragraphs", ""):
        return
    marks = {name: '"' if "string" in kind or "binary" in kind else kind[:1] for name, kind in kinds.items()}
    if not marks.keys() & {"text", "contents"} or QUESTION_KEYS & marks.keys():
        if problem := problem_of_keys(marks):
            raise UnusableShapeError(problem)
        columns = ", ".join(kinds)[:200]
        raise UnusableShapeError(f"has the columns {columns}: id, title, text or id, contents are needed")


def _batches(table: Any) -> Iterator[list[dict[str, Any]]]:
    """Rows in batches of bounded size. Raises `BrokenFileError` for a damaged table."""
    arrow_error, names = _arrow().ArrowException, table.schema_arrow.names
    if len(set(names)) < len(names):
        raise BrokenFileError("two columns have the same name")
    groups = [table.metadata.row_group(group) for group in range(table.metadata.num_row_groups)]
    widest = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=1.0)
    size = max(1, min(_BATCH, int(MAX_ROW_BYTES / max(widest, 1.0))))
    batches = table.iter_batches(batch_size=size, columns=[name for name in names if name in _COLUMNS])
    while True:
        try:
            batch = next(batches, None)
            rows = None if batch is None else batch.to_pylist()
        except (arrow_error, OSError, ValueError) as error:
            raise BrokenFileError(str(error).splitlines()[0] if str(error) else "the table is damaged") from error
        if rows is None:
            return
        yield rows


def _opened(file: IO[bytes]) -> Any:
    """A `pyarrow.parquet.ParquetFile`. Raises `BrokenFileError` for anything that is not a complete one."""
    arrow = _arrow()
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(file)
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise BrokenFileError(str(error).partition(".")[0]) from error


def _arrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise InputError('Reading Parquet needs pyarrow: pip install "r1searcher[parquet]".') from error
    return pyarrow


FORMAT = CorpusFormat(
    read,
    'a table with the columns of `jsonl` or `paragraphs` (`pip install "r1searcher[parquet]"`)',
    lambda sample: sample.start.startswith(b"PAR1"),
    seekable=True,
)
