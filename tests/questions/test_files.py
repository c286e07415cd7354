"""Lines, encodings and files that are not files, the same for questions, traces and prompts."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from r1searcher.episodes.prompt import prompt_text
from r1searcher.episodes.protocols.r1_searcher import R1_SEARCHER
from r1searcher.errors import InputError
from r1searcher.questions.named import open_dataset
from r1searcher.questions.read import read_question_file
from r1searcher.questions.traces import read_traces


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_only_a_line_feed_ends_a_row(tmp_path: Path, end: str) -> None:
    """JSON allows U+2028, U+2029 and U+0085 inside a string; `splitlines` cut there."""
    text = "What\u2028is\u2029this\u0085thing?"
    file = tmp_path / "q.jsonl"
    rows = [{"question": text, "answer": "a\u2028b"}, {"question": "Who?", "answer": "Oslo"}]
    file.write_bytes(("\ufeff" + "".join(json.dumps(row, ensure_ascii=False) + end for row in rows)).encode())
    strict, lenient = read_question_file(file, strict=True).questions, open_dataset(str(file)).questions
    assert strict == lenient
    assert [(q.text, q.gold_answers) for q in strict] == [(text, ("a\u2028b",)), ("Who?", ("Oslo",))]
    traces = tmp_path / "traces.jsonl"
    row = {"segments": [["prompt", text], ["model", "x\u2029y"]]}
    traces.write_bytes((json.dumps(row, ensure_ascii=False) + end + end).encode())
    assert list(read_traces(traces)) == [(("prompt", text), ("model", "x\u2029y"))]


READERS: dict[str, Callable[[str], object]] = {
    "questions": lambda name: read_question_file(Path(name), strict=True),
    "dataset": open_dataset,
    "traces": lambda name: list(read_traces(Path(name))),
    "prompt": lambda name: prompt_text(name, R1_SEARCHER),
}


@pytest.fixture(params=["missing", "folder", "pipe", "long", "nul", "empty name", "below a file", "no text"])
def name(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A name that does not name a text file."""
    (tmp_path / "file").write_bytes(b"\xff\xfe")
    os.mkfifo(tmp_path / "pipe")
    return {
        "missing": str(tmp_path / "missing"),
        "folder": str(tmp_path),
        "pipe": str(tmp_path / "pipe"),
        "long": "x" * 300,
        "nul": "a\0b",
        "empty name": "",
        "below a file": str(tmp_path / "file" / "x"),
        "no text": str(tmp_path / "file"),
    }[request.param]


@pytest.mark.parametrize("reader", READERS)
def test_what_is_not_a_text_file_is_one_sentence(reader: str, name: str) -> None:
    with pytest.raises(InputError) as error:
        READERS[reader](name)
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"segments": ' + "[" * 200_000, "nested too deeply"),
        ('{"segments": [["model", ' + "9" * 5_000 + "]]}", "a number is too long"),
        ('{"segments": [["model", NaN]]}', "NaN is not a JSON number"),
        ('{"segments": [["model", 5]]}', "a row is"),
        ('{"segments": "model"}', "a row is"),
        ('{"segments": [["model", "\\ud800"]]}', "a row is"),
        ("5", "a row is"),
    ],
)
def test_a_trace_of_the_wrong_shape_is_named_by_line(tmp_path: Path, line: str, reason: str) -> None:
    file = tmp_path / "traces.jsonl"
    file.write_text('{"segments": [["prompt", "x"], ["model", "y"]]}\n' + line + "\n")
    with pytest.raises(InputError, match=rf"traces\.jsonl:2 is not a trace.*{reason}") as error:
        list(read_traces(file))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


def test_a_prompt_file_may_end_its_lines_as_windows_does(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes(b"Think.\r\n{question}\r\n")
    assert prompt_text(str(tmp_path / "p.txt"), R1_SEARCHER) == "Think.\n{question}"
