"""What is trained, in which order. Does not need training packages."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from r1searcher.common.files import read_rows
from r1searcher.config.settings import Data, Settings
from r1searcher.engine.training_rows import Prompt, by_length_within_updates, write_prompts
from r1searcher.errors import InputError
from r1searcher.questions.question import Question
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import EpisodeLabel

PROMPTS = [Prompt(f"prompt {i}", Question(f"q{i}", f"question {i}", (f"answer {i}",))) for i in range(10)]


def settings(**rl: Any) -> Settings:
    return Settings.model_validate({"rl": {"questions_per_step": 4, "samples_per_question": 2, "batch_size": 8, **rl}})


def written(folder: Path, chosen: Settings) -> list[str]:
    run = RunFolder(folder)
    write_prompts(run, PROMPTS, chosen)
    return [row["input"] for row in read_rows(run.questions)]


def test_prompts_fill_whole_steps_and_every_question_comes_once_per_epoch(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert write_prompts(run, PROMPTS, settings()) == 2
    assert len({row["input"] for row in read_rows(run.questions)}) == 8
    assert write_prompts(run, PROMPTS, settings(steps=5)) == 5
    assert set(Counter(row["input"] for row in read_rows(run.questions)).values()) == {2}


def test_the_order_of_a_seed_never_changes(tmp_path: Path) -> None:
    """Written by the first version of this project: such a run continues in the same order."""
    numbers = [8, 2, 6, 3, 4, 7, 9, 1, 0, 5, 9, 6, 4, 3, 5, 7, 1, 2, 8, 0]
    assert written(tmp_path, settings(steps=5)) == [f"prompt {i}" for i in numbers]
    assert written(tmp_path, settings(steps=5).model_copy(update={"seed": 8})) != [f"prompt {i}" for i in numbers]


def test_the_order_is_the_files_where_nothing_is_shuffled(tmp_path: Path) -> None:
    kept = settings(steps=5).model_copy(update={"data": Data(shuffle=False)})
    assert written(tmp_path, kept) == [f"prompt {i % 10}" for i in range(20)]


def test_a_label_says_the_question_and_the_step_and_epoch_of_its_row(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    write_prompts(run, PROMPTS, settings(steps=5))
    rows = list(read_rows(run.questions))
    labels = [EpisodeLabel.model_validate(json.loads(row["label"])) for row in rows]
    assert [label.step for label in labels] == [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4 + [5] * 4
    assert [label.epoch for label in labels] == [1] * 10 + [2] * 10
    for row, label in zip(rows, labels, strict=True):
        number = row["input"].removeprefix("prompt ")
        assert (label.id, label.question, label.gold_answers) == (
            f"q{number}",
            f"question {number}",
            [f"answer {number}"],
        )
        assert label.split == "train"


def test_fewer_questions_than_a_step_takes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="questions_per_step = 4"):
        write_prompts(RunFolder(tmp_path), PROMPTS[:3], settings())


def test_an_update_keeps_its_rows_and_has_those_of_similar_length_together() -> None:
    rows = [f"row {i}" for i in range(22)]
    lengths = [(i * 7) % 5 for i in range(22)]
    ordered = by_length_within_updates(rows, 4, lengths)
    assert len(ordered) == 20
    for start in range(0, 20, 4):
        update = ordered[start : start + 4]
        assert set(update) == set(rows[start : start + 4])
        assert [lengths[rows.index(row)] for row in update] == sorted(lengths[start : start + 4])
