import json
import re
from pathlib import Path
from typing import Any

import pytest

from r1searcher.commands import options
from r1searcher.config.settings import Data
from r1searcher.errors import InputError, R1Error
from r1searcher.questions.datasets import DATASETS
from r1searcher.questions.named import is_here, open_dataset
from r1searcher.questions.quality import overlap_warning, quality_warnings
from r1searcher.questions.question import Question
from tests.shared_data import DATA, has_shared, shared

RELEASED = {"question": "Who?", "idx": 4, "answer": "Oslo"}
FLASHRAG = {"id": "test_0", "question": "Who?", "golden_answers": ["Oslo", "Christiania"]}
SEARCH_R1 = {
    "id": "t",
    "question": "Who?",
    "prompt": [{"role": "user", "content": "Question: Who?"}],
    "reward_model": {"style": "rule", "ground_truth": {"target": ["Oslo"]}},
}


def write(file: Path, *rows: Any) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("row", "gold_answers"), [(RELEASED, ("Oslo",)), (FLASHRAG, ("Oslo", "Christiania")), (SEARCH_R1, ("Oslo",))]
)
def test_rows_of_each_format_are_read(tmp_path: Path, row: dict[str, Any], gold_answers: tuple[str, ...]) -> None:
    [question] = open_dataset(str(write(tmp_path / "d.jsonl", row))).questions
    assert (question.text, question.gold_answers) == ("Who?", gold_answers)


def test_unusable_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    file = write(tmp_path / "d.jsonl", FLASHRAG, {"question": "Where?", "answer": ""}, {"answer": "x"}, [1])
    dataset = open_dataset(str(file))
    assert len(dataset.questions) == 1
    assert dataset.warnings[0].startswith("3 unusable rows skipped, the first in line 2")


def test_what_is_odd_is_said() -> None:
    questions = [
        Question("1", "Who was it?", ("one two three four five six seven eight nine ten eleven",)),
        Question("2", "who  was it", ("A",)),
        Question("2", "Where?", ("Oslo", "a b c d e f g h i j k l")),
        Question("3", "When?", ("['1999', '2000']",)),
    ]
    warnings = quality_warnings(questions)
    assert len(warnings) == 5
    assert warnings[0] == "1 question repeats an earlier one"
    assert warnings[1] == "1 row repeats an earlier id"
    assert "more than 10 words" in warnings[2]
    assert "normalize to nothing" in warnings[3]
    assert "list written as text" in warnings[4]
    assert warnings[4].endswith("(first: id 3)")
    assert overlap_warning(questions, [Question("9", "The where", ("Oslo",))]) == [
        "1 question is in the training data too"
    ]


def test_clean_rows_have_no_oddities() -> None:
    questions = [Question("1", "Who?", ("Oslo", "[sic]"))]
    assert quality_warnings(questions) == []
    assert overlap_warning(questions, [Question("1", "Where?", ("Oslo",))]) == []


def test_a_name_is_looked_up_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "nq").mkdir()
    write(tmp_path / "nq" / "test.jsonl", FLASHRAG)
    write(tmp_path / "2wiki_500.jsonl", RELEASED)
    assert open_dataset("nq", tmp_path).name == "nq"
    assert open_dataset("2wikimultihopqa", tmp_path).questions[0].id == "4"
    with pytest.raises(InputError, match=r"does not contain popqa:test: looked for popqa.jsonl, popqa/test.jsonl"):
        open_dataset("popqa", tmp_path)


def test_a_name_is_fetched_from_the_hub_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Any) -> None:
    asked = []

    def hub(path: str, _: Any) -> tuple[int, Any]:
        asked.append(path)
        return 200, FLASHRAG

    monkeypatch.setenv("HF_ENDPOINT", serve(hub).url)
    monkeypatch.setenv("R1S_CACHE", str(tmp_path))
    assert open_dataset("bamboogle") == open_dataset("bamboogle")
    assert asked == ["/datasets/RUC-NLPIR/FlashRAG_datasets/resolve/main/bamboogle/test.jsonl"]


def test_a_hub_that_refuses_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Any) -> None:
    monkeypatch.setenv("HF_ENDPOINT", serve(lambda *_: (404, "no")).url)
    monkeypatch.setenv("R1S_CACHE", str(tmp_path))
    with pytest.raises(R1Error, match=r"answered with status 404.*; give a folder with the file"):
        open_dataset("bamboogle")
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(InputError, match=r"there is no dataset 'bambogle' \(did you mean bamboogle\?\)"):
        open_dataset("bambogle")
    with pytest.raises(InputError, match="there is no dataset ''"):
        open_dataset("")


def test_a_split_can_be_named_and_training_takes_the_training_split(tmp_path: Path) -> None:
    (tmp_path / "nq").mkdir()
    for split in ("train", "dev", "test"):
        write(tmp_path / "nq" / f"{split}.jsonl", {"question": f"{split}?", "golden_answers": ["Oslo"]})
    write(tmp_path / "bamboogle.jsonl", RELEASED)

    def read(name: str, training: bool = False) -> tuple[str, str]:
        dataset = open_dataset(name, tmp_path, training=training)
        return dataset.name, dataset.questions[0].text

    assert read("nq") == ("nq", "test?")
    assert read("nq", training=True) == ("nq:train", "train?")
    assert read("nq:dev", training=True) == read("nq:dev") == ("nq:dev", "dev?")
    assert read("bamboogle:test", training=True) == ("bamboogle", "Who?")
    with pytest.raises(InputError, match="bamboogle has no training split: give bamboogle:test"):
        read("bamboogle", training=True)
    with pytest.raises(InputError, match="nq has no split 'trian': give nq:train or nq:dev or nq:test"):
        read("nq:trian")


def test_what_needs_no_download_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R1S_CACHE", str(tmp_path / "cache"))
    assert not is_here("nq", training=True)
    assert not is_here("nq", tmp_path)
    assert not is_here(str(tmp_path / "none.jsonl"))
    file = write(tmp_path / "nq.jsonl", FLASHRAG)
    assert is_here("nq", tmp_path)
    assert is_here(str(file))
    (tmp_path / "cache/datasets/nq").mkdir(parents=True)
    assert not is_here("nq:train")
    assert not is_here("nq", training=True)
    write(tmp_path / "cache/datasets/nq/train.jsonl", FLASHRAG)
    assert is_here("nq:train")
    assert is_here("nq", training=True)


def test_a_bad_row_of_a_named_dataset_does_not_end_a_training(tmp_path: Path) -> None:
    file = write(tmp_path / "nq.jsonl", FLASHRAG, {"question": "Who?", "golden_answers": []})
    with pytest.raises(InputError, match=":2: the row has no gold answer"):
        open_dataset(str(file), strict=True)
    dataset = open_dataset("nq:test", tmp_path, strict=True, training=True)
    assert dataset.warnings[0].startswith("1 unusable row skipped, the first in line 2")


def test_help_and_settings_name_every_dataset() -> None:
    fields = Data.model_fields
    words = {key: set(re.findall(r"\w+", fields[key].description or "")) for key in ("train", "held_out")}
    trained = {"hotpotqa", "2wikimultihopqa", "musique", "nq", "triviaqa"}
    assert words["train"] & set(DATASETS) == trained
    assert words["held_out"] & set(DATASETS) == trained | {"bamboogle", "popqa"}
    assert set(re.findall(r"\w+", options.DATASETS)) & set(DATASETS) == trained | {"bamboogle", "popqa"}


def test_released_training_rows_whose_gold_answers_cannot_be_earned_are_counted() -> None:
    dataset = open_dataset(str(DATA / "questions" / "stage_2.jsonl"))
    assert len(dataset.questions) == 64
    words = [len(q.gold_answers[0].split()) > 10 for q in dataset.questions]
    assert any(n.startswith(f"{sum(words)} questions have only gold answers of more than 10") for n in dataset.warnings)


def test_all_released_training_rows_are_read() -> None:
    """The 64 rows in the repository, or all 8,148 where they are at hand."""
    large = has_shared("data/r1-searcher/training_set/stage_2.jsonl")
    file = shared("data/r1-searcher/training_set/stage_2.jsonl") if large else DATA / "questions" / "stage_2.jsonl"
    dataset = open_dataset(str(file), strict=True)
    assert len(dataset.questions) == (8148 if large else 64)
    wanted = "63 questions have" if large else "questions have"
    assert any(wanted in n and "more than 10 words" in n for n in dataset.warnings)
