"""A file of predictions, scored; a large one by several processes."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from r1searcher.evaluation.predictions import named_dataset, parse, prediction_lines, read_predictions
from r1searcher.report.scoring import Scored, score_prediction

LARGE = 20_000_000
"""Bytes from which on a file is scored by several processes."""


def score_file(file: Path, processes: int = 1, dataset: str = "") -> list[Scored]:
    """Scores of a predictions file in its order; a large one by several processes.

    `dataset` is the dataset of all its rows. Raises `InputError` for a file that cannot be read or is empty.
    """
    if processes == 1 or not file.is_file() or file.stat().st_size < LARGE:
        return [score_prediction(prediction, dataset) for prediction in read_predictions(file)]
    with ProcessPoolExecutor(processes) as pool:
        return [scored for chunk in pool.map(_score_lines, _chunks(file, dataset)) for scored in chunk]


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Lines of a file with their numbers, for one process."""

    file: Path
    dataset: str
    lines: list[tuple[int, str]]


def _chunks(file: Path, dataset: str, size: int = 2_000) -> Iterator[_Chunk]:
    lines = prediction_lines(file)
    while chunk := list(islice(lines, size)):
        yield _Chunk(file, dataset, chunk)


def _score_lines(chunk: _Chunk) -> list[Scored]:
    named = named_dataset(chunk.file)
    return [
        score_prediction(parse(line, f"{chunk.file}:{number}", str(number), named), chunk.dataset)
        for number, line in chunk.lines
    ]
