import json
from pathlib import Path
from typing import Any

import pytest

from r1searcher.errors import InputError, R1Error
from r1searcher.questions.named import open_dataset
from r1searcher.questions.question import Question
from tests.shared_data import shared

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
    ("row", "golds"), [(RELEASED, ("Oslo",)), (FLASHRAG, ("Oslo", "Christiania")), (SEARCH_R1, ("Oslo",))]
)
def test_rows_of_each_format_are_read(tmp_path: Path, row: dict[str, Any], golds: tuple[str, ...]) -> None:
    [question] = open_dataset(str(write(tmp_path / "d.jsonl", row))).questions
    assert (question.text, question.golds) == ("Who?", golds)


def test_unusable_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    file = write(tmp_path / "d.jsonl", FLASHRAG, {"question": "Where?", "answer": ""}, {"answer": "x"}, [1])
    dataset = open_dataset(str(file))
    assert len(dataset.questions) == 1
    assert dataset.notes[0].startswith("3 unusable rows, the first in line 2")


def test_oddities_are_said() -> None:
    questions = [
        Question("1", "Who was it?", ("one two three four five six seven eight nine ten eleven",)),
        Question("2", "who  was it", ("A",)),
        Question("2", "Where?", ("Oslo", "a b c d e f g h i j k l")),
    ]
    notes = oddities(questions, ["Where"])
    assert len(notes) == 5
    assert notes[0] == "1 questions repeat an earlier one"
    assert notes[1] == "1 rows repeat an earlier id"
    assert "more than 10 words" in notes[2]
    assert "normalise to nothing" in notes[3]
    assert notes[4] == "1 questions stand in the training data too"


def test_clean_rows_have_no_oddities() -> None:
    assert oddities([Question("1", "Who?", ("Oslo",))], ["Where?"]) == []


def test_a_name_is_looked_up_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "nq").mkdir()
    write(tmp_path / "nq" / "test.jsonl", FLASHRAG)
    write(tmp_path / "2wiki_500.jsonl", RELEASED)
    assert open_dataset("nq", tmp_path).name == "nq"
    assert open_dataset("2wikimultihopqa", tmp_path).questions[0].id == "4"
    with pytest.raises(InputError, match=r"holds no popqa: looked for popqa.jsonl, popqa/test.jsonl"):
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
    with pytest.raises(R1Error, match="answered 404; give a folder with the file by --data-dir"):
        open_dataset("bamboogle")
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(InputError, match="there is no data set 'bambogle'"):
        open_dataset("bambogle")


def test_released_training_rows_whose_golds_cannot_be_earned_are_counted() -> None:
    dataset = open_dataset(str(shared("data/r1-searcher/training_set/stage_2.jsonl")))
    assert len(dataset.questions) == 8148
    assert any(note.startswith("63 questions have only golds of more than 10 words") for note in dataset.notes)
