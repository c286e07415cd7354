import json
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
        ("<|begin_of_query|> more<|end_of_query|>", StopReason.SEARCHES_USED_UP),
        ("<|end_of_query|>", StopReason.MALFORMED_QUERY),
        ("and so", StopReason.ENDED),
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
    row = to_row(trajectory, dataset="d", id="7", place=3, sample=1)
    prediction = parse(json.dumps(row), "here", "1")
    assert prediction.trajectory == trajectory
    assert prediction.key == "d/3"
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


def test_a_missing_file_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no predictions file"):
        list(read_predictions(tmp_path / "none.jsonl"))
