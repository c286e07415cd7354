"""Reading traces for the SFT."""

import json
from pathlib import Path

import pytest

from r1searcher.errors import InputError
from r1searcher.questions.traces import read_traces

SEGMENTS = [
    ["prompt", "Which river?<think>"],
    ["model", " I need it. <|begin_of_query|> river<|end_of_query|>"],
    ["environment", "\n\n<|begin_of_documents|>\n(1)Title: T Text: Arden\n<|end_of_documents|>\n\n"],
    ["model", " It is Arden.</think><answer> Arden</answer>"],
]


def test_a_trace_is_its_segments_in_order(tmp_path: Path) -> None:
    file = tmp_path / "traces.jsonl"
    file.write_text(
        json.dumps({"segments": SEGMENTS}) + "\n" + json.dumps({"id": "2", "segments": SEGMENTS[:2]}) + "\n"
    )
    assert [[[str(author), text] for author, text in trace] for trace in read_traces(file)] == [SEGMENTS, SEGMENTS[:2]]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("no json", "not JSON"),
        ("{}", "a row is"),
        ('{"segments": [["somebody", "text"]]}', "a row is"),
        ('{"segments": [["model"]]}', "a row is"),
        ("[1]", "a row is"),
        ('{"prompt": "Write."}', "a row is"),
        ('{"prompt": "", "response": "a"}', "a row is"),
        ('{"prompt": 1, "response": "a"}', "a row is"),
        ('{"segments": []}', "it has no text of the model"),
        ('{"segments": [["prompt", "Which river?"], ["model", ""]]}', "it has no text of the model"),
        ('{"segments": [["prompt", ""], ["model", "Arden"]]}', "there is no prompt before the text of the model"),
    ],
)
def test_a_line_that_is_not_a_trace_is_named_with_the_reason(tmp_path: Path, line: str, reason: str) -> None:
    file = tmp_path / "traces.jsonl"
    file.write_text(json.dumps({"segments": SEGMENTS}) + "\n" + line + "\n")
    with pytest.raises(InputError, match=rf"traces\.jsonl:2 is not a trace.*{reason}"):
        list(read_traces(file))


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        list(read_traces(tmp_path / "missing.jsonl"))
