"""Every dataset of the package keeps the contract that others test theirs with."""

from pathlib import Path

import pytest

from r1searcher.errors import InputError
from r1searcher.questions.contract import check_dataset
from r1searcher.questions.datasets import DATASETS, NamedDataset, PublishedFile
from r1searcher.questions.question import Question

ROWS = '{"question": "Who?", "answer": "Ada"}\n{"question": "Where?", "answer": "Oslo"}\n'


@pytest.mark.parametrize("name", DATASETS.builtin)
def test_datasets(name: str) -> None:
    check_dataset(name, DATASETS[name])


def test_splits_of_files_and_functions(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text(ROWS)
    splits = {"train": tmp_path / "q.jsonl", "test": lambda: [Question("1", "Who?", ("Ada",))]}
    check_dataset("mine", NamedDataset(splits))


def test_a_spelling_is_in_lower_case_with_underscores() -> None:
    check_dataset("My-Rivers", NamedDataset({"test": "https://h/f.jsonl"}, spelling="(my_)?rivers"))
    with pytest.raises(AssertionError, match="spelling of My-Rivers matches its name"):
        check_dataset("My-Rivers", NamedDataset({"test": "https://h/f.jsonl"}, spelling="(My-)?Rivers"))


@pytest.mark.parametrize(
    ("dataset", "rule"),
    [
        (NamedDataset({"test": "https://h/f.jsonl"}, scorer="mine"), "is an OfficialScorer or one of"),
        (NamedDataset({"test": "https://h/f.jsonl"}, spelling="other"), "spelling of mine matches its name"),
        (NamedDataset({"test": "http://h/f.jsonl"}), "begins with https:// or hf://"),
        (NamedDataset({"test": "hf://datasets/owner"}), "hf://datasets/OWNER/NAME/FILE"),
        (NamedDataset({"test": PublishedFile("f.jsonl", (), "0" * 64)}), "has at least one URL"),
        (NamedDataset({"test": PublishedFile("f.jsonl", ("http://h/f",), "0" * 64)}), "begins with https:// or hf://"),
        (NamedDataset({"test": PublishedFile("f.jsonl", ("https://h/f",), "md5")}), "has 64 hexadecimal digits"),
        (NamedDataset({"test": lambda: [{"question": "Who?", "answer": "A"}, {"question": "Who?"}]}), "is a question"),
        (NamedDataset({"test": lambda: [Question("1", "Who?", ("Ada",))] * 2}), "ids of mine:test are unique"),
    ],
)
def test_a_dataset_that_breaks_a_rule_is_told_which(dataset: NamedDataset, rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        check_dataset("mine", dataset)


@pytest.mark.parametrize(("splits", "evaluated"), [({}, ""), ({"test": "https://h/f.jsonl"}, "dev")])
def test_a_dataset_without_the_split_that_is_evaluated_cannot_be_made(splits: dict[str, str], evaluated: str) -> None:
    with pytest.raises(ValueError, match="has at least one split"):
        NamedDataset(splits, evaluated=evaluated)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl"):
        check_dataset("mine", NamedDataset({"test": tmp_path / "none.jsonl"}))
