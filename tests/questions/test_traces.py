"""Traces as rows of the SFT: what the model should write is an output, a document never is."""

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


def test_a_trace_is_a_row_for_each_segment_of_the_model(tmp_path: Path) -> None:
    file = tmp_path / "traces.jsonl"
    file.write_text(json.dumps({"segments": SEGMENTS}) + "\n")
    rows = list(read_traces(file))
    assert [row["output"] for row in rows] == [SEGMENTS[1][1], SEGMENTS[3][1]]
    assert rows[0]["input"] == SEGMENTS[0][1]
    assert rows[1]["input"] == "".join(text for _, text in SEGMENTS[:3])
    assert not any("documents" in row["output"] for row in rows)


@pytest.mark.parametrize(
    "line", ["no json", "{}", '{"segments": [["somebody", "text"]]}', '{"segments": [["model"]]}', "[1]"]
)
def test_a_line_that_is_no_trace_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "traces.jsonl"
    file.write_text(json.dumps({"segments": SEGMENTS}) + "\n" + line + "\n")
    with pytest.raises(InputError, match=r"traces\.jsonl:2 is not a trace"):
        list(read_traces(file))


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        list(read_traces(tmp_path / "missing.jsonl"))
