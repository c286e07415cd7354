"""Every published shape of a question file, read by the reader of training, recall and evaluation."""

import contextlib
import json
from pathlib import Path

import pytest

from r1searcher.errors import InputError
from r1searcher.questions.question import Question
from r1searcher.questions.read import read_question_file
from tests.shared_data import DATA

FOLDER = DATA / "questions"
NQ = [json.loads(line) for line in (FOLDER / "nq_open.jsonl").read_text("utf-8").split("\n")[:-1]]


def released(name: str) -> list[dict]:
    return [json.loads(line) for line in (FOLDER / name).read_text("utf-8").strip().split("\n")]


def read_questions(file: Path) -> tuple[Question, ...]:
    return read_question_file(file, strict=True).questions


@pytest.mark.parametrize(
    "name", ["bamboogle", "hotpotqa_500", "2wiki_500", "musique_500", "stage_1", "stage_2", "nq_open", "flashrag_nq"]
)
def test_released_rows(name: str) -> None:
    rows = released(f"{name}.jsonl")
    questions = read_questions(FOLDER / f"{name}.jsonl")
    assert [q.text for q in questions] == [row["question"].strip() for row in rows]
    for question, row in zip(questions, rows, strict=True):
        gold_answers = row.get("golden_answers", row.get("answer"))
        assert list(question.gold_answers) == list(
            dict.fromkeys(gold_answers if isinstance(gold_answers, list) else [gold_answers])
        )


@pytest.mark.parametrize("name", ["search_r1.jsonl", "search_r1.parquet", "skyrl.jsonl"])
def test_rows_of_prompt_and_reward_alone_ask_the_question_and_not_the_instruction(name: str) -> None:
    pytest.importorskip("pyarrow") if name.endswith("parquet") else None
    questions = read_questions(FOLDER / name)
    assert [q.text for q in questions] == [f"{row['question']}?" for row in NQ[:24]]
    assert [list(q.gold_answers) for q in questions] == [row["answer"] for row in NQ[:24]]


@pytest.mark.parametrize(("name", "mark"), [("dpr.csv", ""), ("squad.jsonl", "?"), ("kilt.jsonl", "")])
def test_dpr_squad_and_kilt(name: str, mark: str) -> None:
    questions = read_questions(FOLDER / name)
    assert [q.text for q in questions] == [row["question"] + mark for row in NQ[: len(questions)]]
    assert [list(q.gold_answers) for q in questions] == [row["answer"] for row in NQ[: len(questions)]]
    assert len(questions) in (8, 24)


@pytest.mark.parametrize("name", ["hotpotqa", "2wiki"])
def test_official_arrays(name: str) -> None:
    official = json.loads((FOLDER / f"{name}_official.json").read_text("utf-8"))
    questions = read_questions(FOLDER / f"{name}_official.json")
    assert [(q.id, q.text, q.gold_answers) for q in questions] == [
        (row["_id"], row["question"].strip(), (row["answer"],)) for row in official
    ]


def test_musique_aliases_are_gold_answers() -> None:
    questions = read_questions(FOLDER / "musique_official.jsonl")
    for question, row in zip(questions, released("musique_official.jsonl"), strict=True):
        assert set(question.gold_answers) == {row["answer"], *row["answer_aliases"]}
    assert len(questions[0].gold_answers) == 3


def test_triviaqa_aliases_are_gold_answers() -> None:
    [ours] = read_questions(FOLDER / "triviaqa.json")
    [hub] = read_questions(FOLDER / "triviaqa_hub.jsonl")
    assert ours.id == hub.id == "tc_33"
    names = {"Sunset Boulevard", "Sunset Blvd", "West Sunset Boulevard", "Sunset Bulevard", "Sunset Blvd."}
    assert set(ours.gold_answers) == set(hub.gold_answers) == names
    assert ours.gold_answers[0] == "Sunset Boulevard"


@pytest.mark.parametrize("name", ["popqa.tsv", "popqa.jsonl"])
def test_popqa(name: str) -> None:
    questions = read_questions(FOLDER / name)
    assert questions[0].text == "What is George Rankin's occupation?"
    assert questions[0].gold_answers == ("politician", "political leader", "political figure", "polit.", "pol")
    assert questions[1].gold_answers[-1] == "🇳🇴"
    assert questions[3].gold_answers == ('Vestland "county"', "Vestland")


def test_the_gold_of_a_multiple_choice_is_the_choice_and_not_its_index() -> None:
    gold_answers = [question.gold_answers for question in read_questions(FOLDER / "flashrag_choice.jsonl")]
    assert gold_answers == [("Oslo",), ("8",), ("2", "5")]


def one(tmp_path: Path, row: object, *, strict: bool = True) -> tuple[str, tuple[str, ...]]:
    file = tmp_path / "one.jsonl"
    file.write_text(json.dumps(row) + "\n")
    [question] = read_question_file(file, strict=strict).questions
    return question.text, question.gold_answers


REWARD = {"reward_model": {"ground_truth": {"target": ["Oslo"]}}}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "Think.\nQuestion: Who?\n", **REWARD}, "Who?"),
        ({"prompt": [{"role": "user", "content": "Question: Who? Context: Doc 1(Title: A) b \n"}], **REWARD}, "Who?"),
        ({"prompt": [{"role": "user", "content": "Help."}], "extra_info": {"question": "Who?"}, **REWARD}, "Who?"),
        ({"prompt": [{"role": "user", "content": "Help."}], "question": "Who?", **REWARD}, "Who?"),
        ({"question": "Who?", "reward_model": {"ground_truth": "Oslo"}}, "Who?"),
        ({"question": "Who?", "reward_model": {"ground_truth": ["Oslo"]}}, "Who?"),
    ],
)
def test_where_the_question_of_a_prompt_is_found(tmp_path: Path, row: dict, expected: str) -> None:
    assert one(tmp_path, row) == (expected, ("Oslo",))


@pytest.mark.parametrize(
    "prompt",
    [
        "Answer: who?",
        [{"role": "user", "content": "Please help me."}],
        "Question: A? Answer: b. Question: C?",
        "<|im_start|>user\nQuestion: Who?<|im_end|>",
        [{"role": "user", "content": ["Question: Who?"]}],
        [],
        7,
        {"Question:": 1},
    ],
)
def test_an_instruction_is_never_taken_for_a_question(tmp_path: Path, prompt: object) -> None:
    with pytest.raises(InputError, match=r"one\.jsonl:1: the question cannot be found .* add a column `question`"):
        one(tmp_path, {"prompt": prompt, **REWARD})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "Who?", "golden_answers": [4], "choices": ["A", "B"]}, "'4' is neither one of its choices"),
        ({"question": "Who?", "golden_answers": [-1], "choices": ["A", "B"]}, "neither"),
        ({"question": "Who?", "golden_answers": [True], "choices": ["A", "B"]}, "neither"),
        ({"question": "Who?", "golden_answers": [0], "choices": "AB"}, "not a list of texts"),
        ({"question": "Who?", "answer": "A", "answerable": False}, "answerable: false"),
        ({"question": "Who?", "answer": [["A"]]}, "list inside a list"),
        ({"question": "Who?", "possible_answers": "['A'"}, "`possible_answers` is not JSON"),
        ({"question": 5, "answer": "A"}, "`question` is not text"),
        ({"question": " ", "answer": "A"}, "`question` is empty"),
        ({"question": "Who?", "answer": "A", "id": [1]}, "id is neither"),
        ({"question": "a\0b", "answer": "A"}, "NUL"),
        ({"question": "Who?", "answer": "\ud800"}, "surrogate"),
        ({"question": "Who?", "answer": " "}, "no gold answer"),
    ],
)
def test_a_row_that_cannot_be_used_says_why(tmp_path: Path, row: dict, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        one(tmp_path, row)
    with pytest.raises(InputError, match=reason):
        one(tmp_path, row, strict=False)


USABLE = '{"question": "Who?", "answer": "Oslo"}'


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("corpus.jsonl", '{"id": "1", "contents": "T\\nText."}', "passages, not questions .*index-corpus"),
        ("corpus.jsonl", '{"_id": "1", "title": "T", "text": "Text."}', "passages, not questions"),
        ("kilt.jsonl", '{"wikipedia_title": "T", "text": ["Text."]}', "passages, not questions"),
        ("corpus.json", '[\n{"title": "T", "text": "Text."}\n]', "passages, not questions"),
        ("corpus.tsv", "0\tTitle: T Text: Some.\n", "passages, not questions"),
        ("psgs.tsv", "id\ttext\ttitle\n1\tText.\tT\n", "passages, not questions"),
        ("predictions.json", '{"answer": {"5a": "x"}, "sp": {"5a": []}}', "predictions without"),
        ("predictions.jsonl", '{"id": "2hop", "predicted_answer": "x"}', "predictions without"),
        ("qrels.tsv", "query-id\tcorpus-id\tscore\nq\td\t1\n", "qrels"),
        ("qrels.txt", "301 0 FBIS3-1 1\n", "qrels"),
        ("queries.jsonl", '{"_id": "1", "text": "Who?"}', "questions without gold answers"),
        ("traces.jsonl", '{"segments": [["prompt", "x"]]}', "SFT traces"),
        ("prompts.jsonl", '{"input": "x", "label": "{}"}', "prompts of a run"),
        ("squad.json", '{"data": [{"title": "T", "paragraphs": []}]}', "SQuAD articles"),
        ("empty.jsonl", "\n \n", "is empty"),
        ("empty.json", "[]", "is empty"),
        ("notes.txt", "Some notes, and more.\n", "no rows of questions and answers"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_a_known_file_without_questions_is_called_what_it_is(
    tmp_path: Path, name: str, content: str, kind: str, strict: bool
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=rf"{kind}.*give JSON Lines") as error:
        read_question_file(tmp_path / name, strict=strict)
    assert "\n" not in str(error.value)
    assert str(tmp_path / name) in str(error.value)


def test_a_compressed_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "dev.csv.gz").write_bytes(b"\x1f\x8b\x08")
    with pytest.raises(InputError, match="compressed: unpack it first"):
        read_questions(tmp_path / "dev.csv.gz")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (USABLE + '\n{"question": ' + "[" * 200_000, r":2: nested too deeply"),
        (USABLE + '\n{"question": "Who?", "answer": ' + "9" * 5_000 + "}", r":2: a number is too long"),
        (USABLE + '\n{"question": "Who?", "answer": NaN}', r":2: NaN is not a JSON number"),
        (USABLE + '\n{"question": "Who', r":2: not JSON"),
        (USABLE + "\n[1]", r":2: not a JSON object"),
        (USABLE + '\n{"question": "a\0b", "answer": "x"}', r":2: not JSON"),
        (USABLE + '\n{"question": "a\\u0000b", "answer": "x"}', r":2: it contains a NUL"),
        ("[" + USABLE + ",\n", r"is not a complete JSON array"),
        ("[" * 200_000, r"is not a complete JSON array: nested too deeply"),
        ("question\tanswer\nWho?\nWho?\tOslo\n", r":2: 1 columns under a header of 2"),
        ("Who?\t['a']\nWho?\t" + "[" * 100_000 + "\n", r":2: not a question, a tab and a list"),
        ("Who?\t['a']\nWho?\t[" + "9" * 5_000 + "]\n", r":2: not a question, a tab and a list"),
        ("Who?\t['a']\n" + "x" * 200_000 + "\t['a']\n", r":2: not a row of a table: field larger"),
    ],
)
def test_bad_rows_are_named_by_line_or_left_out(tmp_path: Path, content: str, reason: str) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text(content)
    with pytest.raises(InputError, match=reason) as error:
        read_questions(file)
    assert len(str(error.value)) < 600
    if ":2: " in reason:
        read = read_question_file(file, strict=False)
        assert (len(read.questions), len(read.refused)) == (1, 1)


@pytest.mark.parametrize("content", [b"\xff\xfe{\x00", b"PAR1 and no more", b"PAR1" + bytes(500) + b"PAR1"])
def test_binary_content_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "q.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"q\.parquet") as error:
        read_questions(tmp_path / "q.parquet")
    assert "\n" not in str(error.value)


def test_parquet_damaged_anywhere_is_one_sentence_or_rows(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    data = (FOLDER / "search_r1.parquet").read_bytes()
    file = tmp_path / "q.parquet"
    for position in range(0, len(data), len(data) // 60):
        for damaged in (data[:position], data[:position] + bytes([data[position] ^ 255]) + data[position + 1 :]):
            file.write_bytes(damaged)
            with contextlib.suppress(InputError):
                assert len(read_question_file(file, strict=False).questions) <= 24
