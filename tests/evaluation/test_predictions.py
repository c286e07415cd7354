import json
import os
import re
from pathlib import Path

import pytest

from r1searcher.episodes.trajectory import Author, StopReason
from r1searcher.errors import InputError
from r1searcher.evaluation.predictions import from_text, parse, read_predictions
from r1searcher.runs.records import to_row

TEXT = (
    "I look. <|begin_of_query|> Oslo river<|end_of_query|>\n\n<|begin_of_documents|>\n"
    '(1)Title: Oslo Text: A city (1048).\n(2)"Title: Akerselva Text:  A river."\n(3)Alna   Another river.\n'
    "<|end_of_documents|>\n\nSo Akerselva. </think>\n\n <answer> Akerselva </answer>"
)


def test_a_transcript_is_told_apart_by_author() -> None:
    trajectory = from_text("Which river?", ("Akerselva",), TEXT)
    assert [s.author for s in trajectory.segments] == [Author.PROMPT, Author.MODEL, Author.ENVIRONMENT, Author.MODEL]
    assert "".join(s.text for s in trajectory.segments[1:]) == TEXT
    assert trajectory.stop is StopReason.ANSWERED
    [search] = trajectory.searches
    assert search.query == "Oslo river"
    assert [(h.passage.title, h.passage.text.strip('"')) for h in search.hits] == [
        ("Oslo", "A city (1048)."),
        ("Akerselva", "A river."),
        ("Alna", "Another river."),
    ]


def test_documents_that_follow_no_query_are_the_models() -> None:
    text = "Hm. <|begin_of_documents|> Oslo <|end_of_documents|> </think> <answer> Oslo </answer>"
    trajectory = from_text("?", ("Oslo",), text)
    assert trajectory.turns == (text,)
    assert not trajectory.searches


@pytest.mark.parametrize(
    ("end", "stop"),
    [
        ("<|begin_of_query|> more<|end_of_query|>", StopReason.SEARCH_LIMIT),
        ("<|end_of_query|>", StopReason.MALFORMED_QUERY),
        ("and so", StopReason.EOS_WITHOUT_ANSWER),
    ],
)
def test_the_end_of_a_transcript_tells_why_it_stopped(end: str, stop: StopReason) -> None:
    assert from_text("?", ("Oslo",), "Hm. " + end).stop is stop


def test_released_rows_bring_answer_and_verdict() -> None:
    row = {"question": "?", "answer": "Oslo", "pred_ans": " Oslo ", "gen_text_store": TEXT, "gpt4o_output": "True"}
    prediction = parse(json.dumps(row), "here", "1")
    assert (prediction.answer, prediction.judge, prediction.judge_failed) == (" Oslo ", True, False)


@pytest.mark.parametrize("said", ["", "error", "I think so", None])
def test_a_judge_that_gave_no_verdict_failed_and_is_no_false(said: object) -> None:
    row = {"question": "?", "answer": "Oslo", "pred_ans": "Oslo", "gpt4o_output": said}
    prediction = parse(json.dumps(row), "here", "1")
    assert (prediction.judge, prediction.judge_failed) == (None, True)


def test_our_rows_come_back_whole() -> None:
    trajectory = from_text("?", ("Oslo", "Christiania"), TEXT)
    row = to_row(trajectory, dataset="d", id="7", index=3, sample=1)
    prediction = parse(json.dumps(row), "here", "1")
    assert prediction.trajectory == trajectory
    assert prediction.key == "d/3"
    assert prediction.answer == " Akerselva "


def test_a_row_that_names_no_protocol_is_of_r1_searcher() -> None:
    row = {key: value for key, value in to_row(from_text("?", ("Oslo",), TEXT)).items() if key != "protocol"}
    prediction = parse(json.dumps(row), "here", "1")
    assert prediction.trajectory is not None
    assert prediction.trajectory.protocol == "r1-searcher"
    assert prediction.answer == " Akerselva "


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("", "is empty"),
        ("{", ":1 is not JSON"),
        ('{"question": "?", "answer": "x", "prediction": "y"}\n[]', ":2 is not a JSON object"),
        ('{"question": "?", "answer": "x"}', ":1 holds no prediction"),
        ('{"question": "?", "prediction": "x"}', "no gold"),
    ],
)
def test_a_wrong_file_gets_a_sentence_with_its_line(tmp_path: Path, lines: str, sentence: str) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(lines)
    with pytest.raises(InputError, match=sentence):
        list(read_predictions(file))


def test_a_steps_folder_is_read_as_one_file(tmp_path: Path) -> None:
    """One file per process that rolled episodes out."""
    for writer, answer in (("b", "y"), ("a", "x")):
        (tmp_path / f"{writer}.jsonl").write_text(json.dumps({**PLAIN, "prediction": answer}) + "\n")
    assert [prediction.answer for prediction in read_predictions(tmp_path)] == ["x", "y"]


def test_a_missing_file_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl does not exist"):
        list(read_predictions(tmp_path / "none.jsonl"))


PLAIN = {"question": "?", "gold_answers": ["x"], "prediction": "y"}
PLAYED = to_row(from_text("?", ("Oslo",), TEXT), dataset="d", index=1, sample=0, parts={"f1": 1.0})
MODEL = {"author": "model", "text": "x", "token_ids": [1]}


def segments(**changes: object) -> dict[str, object]:
    return {**PLAYED, "segments": [{**MODEL, **changes}]}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"prediction": ' + "9" * 5000 + "}", "a number is too long"),
        ('{"prediction": NaN}', "NaN is not a JSON number"),
        ("5", "not a JSON object"),
        (json.dumps({**PLAIN, "prediction": ["y"]}), "prediction must be text or a number"),
        (json.dumps({**PLAIN, "pred_ans": {}}), "pred_ans must be text or a number"),
        (json.dumps({**PLAIN, "question": 5}), "its `question` is not text"),
        (json.dumps({**PLAIN, "id": [1]}), "id must be text or a number"),
        (json.dumps({**PLAIN, "dataset": {}}), "dataset must be text"),
        (json.dumps({**PLAIN, "gen_text_store": ["x"]}), "gen_text_store must be text"),
        (json.dumps({**PLAIN, "question": None, "prompt": ["x"]}), "prompt must be a list of messages"),
        (json.dumps({**PLAYED, "segments": None}), "segments must be a valid list"),
        (json.dumps({**PLAYED, "segments": [5]}), "segments.0 must be an object"),
        (json.dumps({**PLAYED, "gold_answers": "Oslo"}), "gold_answers must be a valid list"),
        (json.dumps({**PLAYED, "gold_answers": [None]}), "gold_answers.0 must be text"),
        (json.dumps({**PLAYED, "stop": "bored"}), "stop: must be 'answered'"),
        (json.dumps({**PLAYED, "stop": []}), "stop must be text"),
        (json.dumps({**PLAYED, "protocol": "nope"}), "protocol must be an installed protocol: r1-searcher"),
        (json.dumps({**PLAYED, "protocol": 5}), "protocol must be text"),
        (json.dumps({**PLAYED, "parts": {"f1": "x"}}), "parts.f1 must be a valid number"),
        (json.dumps({**PLAYED, "searches": [{"query": "q"}]}), "searches.0.shown is missing"),
        (json.dumps({k: v for k, v in PLAYED.items() if k != "searches"}), "searches is missing"),
        (json.dumps(segments(author="me")), "segments.0.author must be 'prompt', 'model' or 'environment'"),
        (json.dumps(segments(text=5)), "segments.0.text must be text"),
        (json.dumps(segments(token_ids="abc")), "segments.0.token_ids must be a valid list"),
        (json.dumps(segments(token_ids=[0.5])), "segments.0.token_ids.0 must be a valid integer"),
        (json.dumps(segments(overhang=-1)), "segments.0.overhang"),
        (json.dumps(segments(overhang=9)), "an overhang is longer than its text"),
    ],
)
def test_a_damaged_row_gets_a_sentence_with_its_line(tmp_path: Path, line: str, reason: str) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(f"{json.dumps(PLAIN)}\n\n{line}\n")
    with pytest.raises(InputError) as caught:
        list(read_predictions(file))
    sentence = str(caught.value)
    assert sentence.startswith(f"{file}:3 ")
    assert reason in sentence
    assert len(sentence) < 200 + len(str(file))
    assert "\n" not in sentence


@pytest.mark.parametrize("odd", ["a\u2028b", "a\u2029b", "a\u0085b", "a\x0bb", "\ud800", "a\U0001f600b"])
def test_odd_characters_end_no_line_and_no_evaluation(tmp_path: Path, odd: str) -> None:
    file = tmp_path / "p.jsonl"
    rows = [{**PLAIN, "prediction": odd}, segments(text=odd)]
    text = "".join(json.dumps(row, ensure_ascii="\x0b" in odd) + "\n" for row in rows)
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    plain, recorded = read_predictions(file)
    assert plain.answer == odd
    assert recorded.trajectory is not None
    assert recorded.trajectory.turns == (odd,)


def test_what_is_no_text_file_gets_a_sentence(tmp_path: Path) -> None:
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes(json.dumps(PLAIN).encode() + b"\n\xe9\n")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "empty").mkdir()
    for file, sentence in (
        (latin, f"{latin}:2 is not UTF-8 text"),
        (tmp_path / "empty", "is a folder"),
        (pipe, "is not a regular file"),
        (tmp_path / ("n" * 300), "not a valid file name"),
        (tmp_path / "a\0b", "not a valid file name"),
        (latin / "x", "does not exist"),
    ):
        with pytest.raises(InputError, match=re.escape(sentence)):
            list(read_predictions(file))
