"""The engine's training data, in order: the rows of the run's data file.

Prompts of a stage are {"input", "label"}. Rows of the SFT are {"segments": the (author, text) pairs of a trace}.
"""

import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from r1searcher.common.files import write_rows
from r1searcher.config.settings import Settings
from r1searcher.episodes.trajectory import Author
from r1searcher.errors import InputError
from r1searcher.questions.question import Question
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import EpisodeLabel

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question in the form that the model sees."""

    text: str
    question: Question


def write_prompts(run: RunFolder, prompts: Sequence[Prompt], settings: Settings) -> int:
    """Write the engine's dataset of prompts and labels, exactly as many as the stage's steps take; returns the steps.

    In training order: epoch by epoch over the prompts, each epoch in a different order that depends on the seed, or all
    in the order of the prompts (`data.shuffle`). Only complete steps: a partial one would end inside an update.
    """
    size = settings.rl.questions_per_step
    if len(prompts) < size:
        raise InputError(
            f"rl.questions_per_step = {size}, and there are {len(prompts)} questions: lower it or add some"
        )
    steps = settings.rl.steps or len(prompts) // size
    order = [
        (epoch, i)
        for epoch in range(-(-steps * size // len(prompts)))
        for i in _order_of(epoch, len(prompts), settings)
    ]
    write_rows(
        run.questions,
        (
            {"input": prompts[i].text, "label": _label(prompts[i].question, 1 + row // size, 1 + epoch)}
            for row, (epoch, i) in enumerate(order[: steps * size])
        ),
    )
    return steps


def _order_of(epoch: int, count: int, settings: Settings) -> list[int]:
    order = list(range(count))
    if settings.data.shuffle:
        random.Random(f"{settings.seed}/{epoch}").shuffle(order)
    return order


def _label(question: Question, step: int, epoch: int) -> str:
    label = EpisodeLabel(
        id=question.id, question=question.text, gold_answers=list(question.gold_answers), step=step, epoch=epoch
    )
    return json.dumps(label.model_dump(), ensure_ascii=False)


def trace_tokens(
    segments: Iterable[tuple[str, str]], encode: Callable[[str], list[int]]
) -> tuple[list[int], list[bool]]:
    """The token ids of a trace, and for each whether the model wrote it; only those are trained.

    Each (author, text) segment is tokenized separately, as in episodes: tokenized together, newlines and the first
    word of a turn would have other ids there.
    """
    ids: list[int] = []
    trained: list[bool] = []
    for author, text in segments:
        ids += encode(text)
        trained += [author == Author.MODEL] * (len(ids) - len(trained))
    return ids, trained


def by_length_within_updates(rows: Sequence[Row], batch: int, lengths: Sequence[int]) -> list[Row]:
    """The same rows in each update of `batch`, shortest first, so that micro-batches have little padding.

    The loss of an update is one mean over its tokens, whatever their order. A last, incomplete update is dropped.
    """
    return [rows[i] for i in _by_length(len(rows), batch, lengths)]


def _by_length(count: int, batch: int, lengths: Sequence[int]) -> Iterator[int]:
    for start in range(0, count - batch + 1, batch):
        yield from sorted(range(start, start + batch), key=lambda i: lengths[i])
