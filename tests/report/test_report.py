"""One report for runs and evaluations, from their files alone."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from r1searcher.common.files import LineCounter, append_row, write_json
from r1searcher.config.settings import Settings
from r1searcher.errors import InputError
from r1searcher.evaluation.predictions import from_text
from r1searcher.evaluation.reports import records_of, run_report
from r1searcher.report.contents import report_of
from r1searcher.report.tables import as_markdown
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import to_row, trajectory_files
from r1searcher.stages.prepare import manifest_of, write_run_metadata
from tests.report.pages import trajectories_in

SEARCH = (
    "I look. <|begin_of_query|> capital<|end_of_query|>\n\n"
    "<|begin_of_documents|>\n(1)Title: Norway Text: Oslo is it.\n<|end_of_documents|>\n\n"
)
RIGHT = SEARCH + "So Oslo. </think> <answer> Oslo </answer>"
WRONG = "So Bergen. </think> <answer> Bergen </answer>"


def episode(text: str, **more: Any) -> dict[str, Any]:
    return to_row(from_text("What is the capital of Norway?", ("Oslo",), text), **more)


def a_run(folder: Path, stage: str = "stage1", steps: int = 3, **reward: Any) -> RunFolder:
    """A run whose episodes get better: of 4 samples, as many are right as steps were done."""
    run = RunFolder(folder)
    run.path.mkdir(parents=True)
    settings = Settings.model_validate({"name": "r", "reward": reward})
    write_run_metadata(run, settings, manifest_of(stage, settings))
    for step in range(1, steps + 1):
        rates = {"reward": step / 4, "f1": step / 4, "retrieval": step / 4, "reward/retrieval": step / 8}
        append_row(run.metrics, {"step": step, "time": 0.0, **rates})
        for sample in range(4):
            text = RIGHT if sample < step else WRONG
            row = episode(text, id="q", reward=float(sample < step), parts={"retrieval": 0.5})
            append_row(run.trajectories(step) / "a.jsonl", row)
    return run


def contents(folder: Path) -> tuple[dict[str, Any], str, list[dict[str, Any]]]:
    """report.json, report.md, and the trajectories of report.html."""
    page = (folder / "report.html").read_text("utf-8")
    report = json.loads((folder / "report.json").read_text("utf-8"))
    return report, (folder / "report.md").read_text("utf-8"), trajectories_in(page)


def test_a_runs_report_has_the_curves_and_the_episodes_of_all_steps(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    run_report([run.path], [], None)
    report, markdown, trajectories = contents(run.path)
    assert [row["step"] for row in report["metrics"]] == [1, 2, 3]
    assert {name: group["em"]["value"] for name, group in report["steps"].items()} == {
        "step 1": 0.25,
        "step 2": 0.5,
        "step 3": 0.75,
    }
    assert report["steps"]["step 1"]["pass@4"]["value"] == 1
    assert report["manifest"]["stage"] == "stage1"
    assert [(t["group"], t["verdict"]) for t in trajectories] == [
        *[("step 1", "right"), *[("step 1", "wrong")] * 3],
        *[*[("step 2", "right")] * 2, *[("step 2", "wrong")] * 2],
        *[*[("step 3", "right")] * 3, ("step 3", "wrong")],
    ]
    assert trajectories[0]["parts"] == {"retrieval": 0.5}
    assert "| EM, R1-Searcher | 0.250 [0.250, 0.250] | 0.500 [0.500, 0.500] | 0.750 [0.750, 0.750] |" in markdown
    [last] = [line for line in markdown.splitlines() if line.startswith("| 3 |")]
    assert last.split(" | ")[1] == "0.750"
    page = (run.path / "report.html").read_text("utf-8")
    assert 'aria-label="retrieval rate per step"' in page
    assert "<th>retrieval part</th>" in page
    assert '<label>step <select id="group">' in page


def test_steps_and_folder_can_be_chosen(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    before = sorted(run.path.rglob("*"))
    run_report([run.path], [2], tmp_path / "to")
    assert list(contents(tmp_path / "to")[0]["steps"]) == ["step 2"]
    assert sorted(run.path.rglob("*")) == before
    with pytest.raises(InputError, match="no trajectories of step 4: it has steps 1 to 3"):
        run_report([run.path], [4], None)


def test_a_long_runs_report_has_some_of_its_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1searcher.report.run.MOST", 12)
    run = a_run(tmp_path / "run", steps=9)  # of 4 trajectories each
    run_report([run.path], [], None)
    report, markdown, trajectories = contents(run.path)
    assert list(report["steps"]) == ["step 1", "step 5", "step 9"]
    assert len(trajectories) == 12
    assert "- trajectories of 3 of 9 steps" in markdown


def test_two_runs_have_one_report_in_a_folder_of_its_own(tmp_path: Path) -> None:
    folders = [a_run(tmp_path / name, steps=1).path for name in ("a", "b")]
    with pytest.raises(InputError, match="give one with --to"):
        run_report(folders, [], None)
    with pytest.raises(InputError, match="given twice"):
        run_report([folders[0]] * 2, [], tmp_path / "to")
    run_report(folders, [], tmp_path / "to")
    report, markdown, trajectories = contents(tmp_path / "to")
    groups = [f"{folder}: step 1" for folder in folders]
    assert list(report["steps"]) == groups
    assert list(report["runs"]) == list(map(str, folders))
    assert [t["group"] for t in trajectories] == [group for group in groups for _ in range(4)]
    assert len({t["samples"] for t in trajectories}) == 1
    assert f"## Steps of {folders[1]}" in markdown
    assert sorted(path.name for path in folders[0].iterdir() if "report" in path.name) == []


def test_what_cannot_be_reported_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not a run or an evaluation: it has no manifest\.json"):
        run_report([tmp_path], [], None)
    with pytest.raises(InputError, match="SFT runs no episodes"):
        run_report([a_run(tmp_path / "sft", "sft", steps=0).path], [], None)
    with pytest.raises(InputError, match="no step was recorded yet"):
        run_report([a_run(tmp_path / "new", steps=0).path], [], None)
    write_json(tmp_path / "e" / "manifest.json", {"model": "m", "datasets": {"d": {}}})
    with pytest.raises(InputError, match="leave out --step"):
        run_report([tmp_path / "e"], [1], None)
    with pytest.raises(InputError, match="no episodes yet"):
        run_report([tmp_path / "e"], [], None)


def test_the_format_is_judged_as_the_run_judged_it(tmp_path: Path) -> None:
    text = "So it is Oslo. </think> <answer> Oslo it is, the capital </answer>"
    found = {}
    for name, reward in {"usual": {}, "short": {"max_answer_words": 2}}.items():
        run = a_run(tmp_path / name, steps=0, **reward)
        append_row(run.trajectories(1) / "a.jsonl", episode(text))
        append_row(run.trajectories(1) / "a.jsonl", episode("hm"))
        run_report([run.path], [], None)
        found[name] = contents(run.path)[0]["steps"]["step 1"]["broken_rules"]
    assert found["short"] == {**found["usual"], "long_answer": 1}


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("parts", {"f1": "x"}, "parts.f1: must be"),
        ("seconds", "1", "seconds: must be"),
        ("searches", 3, "searches: must be"),
    ],
)
def test_a_damaged_row_is_named(field: str, value: Any, problem: str, tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", steps=1)
    [file] = trajectory_files(run.trajectories(1))
    append_row(file, {**episode(RIGHT), field: value})
    with pytest.raises(InputError, match=re.escape(f"{file}: row 5 is damaged ({problem}")):
        run_report([run.path], [], None)
    assert not (run.path / "report.html").exists()


def test_fields_of_other_types_that_no_report_needs_do_no_harm(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", steps=1)
    [file] = trajectory_files(run.trajectories(1))
    append_row(file, {**episode(RIGHT), "dataset": 3, "data_source": [], "id": {}, "judge": {}, "reward": "x"})
    run_report([run.path], [], None)
    assert contents(run.path)[0]["steps"]["step 1"]["predictions"] == 5


def test_the_report_of_a_folder_is_that_of_its_records(tmp_path: Path) -> None:
    manifest = {"model": "m", "datasets": {"b": {}, "a": {}}}
    rows = [
        episode(text, dataset=name, id=str(n), index=n, sample=0, seconds=1.0 + n, reward=1.0, parts={})
        for name in ("b", "a")
        for n, text in enumerate((RIGHT, WRONG, RIGHT))
    ]
    write_json(tmp_path / "manifest.json", manifest)
    for row in reversed(rows):  # as episodes end, not in the order of the questions
        append_row(tmp_path / "predictions.jsonl", row)
    with (tmp_path / "predictions.jsonl").open("a") as handle:
        handle.write('{"dataset": "a", "ind')  # an evaluation that is running, or was killed
    size = (tmp_path / "predictions.jsonl").stat().st_size
    run_report([tmp_path], [], None)
    report, markdown, trajectories = contents(tmp_path)
    assert (tmp_path / "predictions.jsonl").stat().st_size == size
    expected = report_of(records_of(manifest, rows))
    assert report == json.loads(json.dumps(expected.as_json()))
    assert list(report["datasets"]) == ["b", "a"]
    assert report["datasets"]["a"]["seconds"] == {"p50": 2.0, "p95": 3.0}
    assert markdown == as_markdown(expected)
    assert [t["group"] for t in trajectories] == ["b"] * 3 + ["a"] * 3


def test_the_markdown_report_names_both_kinds_of_metric() -> None:
    row = episode(RIGHT, dataset="hotpotqa | x", index=0)
    text = as_markdown(report_of(records_of({"model": "m"}, [row])))
    assert "| EM, R1-Searcher | 1.000" in text
    assert "| EM, official | 1.000" in text
    assert "official metrics: hotpot_evaluate_v1.py" in text
    assert "| | hotpotqa \\| x (n = 1) |" in text


def test_lines_are_counted_as_they_are_added_and_never_twice(tmp_path: Path) -> None:
    file, counter = tmp_path / "rows.jsonl", LineCounter()
    assert counter.count([file]) == 0
    file.write_bytes(b"a\nb\nhalf")
    assert counter.count([file]) == 2
    with file.open("r+b") as handle:  # what was counted is not looked at again
        handle.write(b"\n\n\n\n")
    with file.open("ab") as handle:
        handle.write(b"\nc\n")
    assert counter.count([file]) == 4
    file.write_bytes(b"again\n")
    assert counter.count([file, tmp_path / "other"]) == 1


def test_a_run_knows_the_files_of_its_steps(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    assert [step for step, _ in run.recorded_steps()] == [1, 2, 3]
    assert all(trajectory_files(recorded) for _, recorded in run.recorded_steps())
