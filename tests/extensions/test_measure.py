"""A measure of somebody else, exactly as CONTRIBUTING.md has it, wherever measures are shown."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests import extension
from tests.evaluation.conftest import index, questions, searcher, serve, tokenizer_folder  # noqa: F401  # fixtures
from tests.extension import finished
from tests.report.pages import trajectories_in

BLOCKS = extension.blocks("Add a measure")
NAME, LABEL = "answer_words", "words in the answer"

RECORD = '''
"""A run of two steps with two episodes each: answers of one and three words, then of one and five."""
import json
from pathlib import Path
from statistics import fmean

from r1searcher.common import terminal
from r1searcher.common.files import append_row
from r1searcher.config.settings import Settings
from r1searcher.evaluation.predictions import from_text
from r1searcher.report.live import RunView
from r1searcher.report.plots import save_curves, terminal_curves
from r1searcher.questions.question import Question
from r1searcher.rewards.measures import episode_logs
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import read_metrics, to_row
from r1searcher.stages.held_out import held_out_metrics
from r1searcher.stages.prepare import manifest_of, write_run_metadata

def answered(words):
    answer = " ".join(["Oslo"] * words)
    return from_text("What is the capital of Norway?", ("Oslo",), f"So. </think> <answer> {answer} </answer>")

run = RunFolder(Path("run"))
run.path.mkdir()
settings = Settings()
write_run_metadata(run, settings, manifest_of("stage1", settings))
with RunView(run, "stage 1", 2, 2, terminal.console()) as view:
    for step, counts in enumerate(((1, 3), (1, 5)), start=1):
        trajectories = [answered(words) for words in counts]
        logs = [episode_logs(t, {"format": 1.0}, 1.0, 10) for t in trajectories]
        for trajectory in trajectories:
            row = to_row(trajectory, id="q", reward=1.0, parts={"format": 1.0})
            append_row(Path(f"step-{step}.jsonl"), row)
            append_row(run.trajectories(step) / "episodes.jsonl", row)
        means = {key: fmean(row[key] for row in logs) for key in logs[0]}
        append_row(run.metrics, {"step": step, "time": 0.0, "reward": 1.0, **means})
        view.refresh()
terminal.console().print(terminal_curves(read_metrics(run)))
asked = [Question("q", "What is the capital of Norway?", ("Oslo",))] * 2
print(json.dumps(held_out_metrics(trajectories, asked)))
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    entry_points = tomllib.loads(BLOCKS["toml"])["project"]["entry-points"]
    return extension.install(tmp_path / "site", {"answer_words": BLOCKS["answer_words.py"]}, entry_points)


def page(folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """The page of a report, and the trajectories on it."""
    text = (folder / "report.html").read_text("utf-8")
    return text, trajectories_in(text)


def test_a_run_shows_it_in_live_view_curves_held_out_metrics_table_and_page(package: Path, tmp_path: Path) -> None:
    shown = finished(extension.python(RECORD, package, cwd=tmp_path))
    assert f"{LABEL} 2.000" in shown  # the live view's line of step 1
    [curve] = [line for line in shown.splitlines() if line.strip().startswith(f"{LABEL}  2.00")]
    assert curve.endswith("3.00")
    assert json.loads(shown.splitlines()[-1])[NAME] == 3.0

    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row[NAME] for row in metrics] == [2.0, 3.0]

    table = finished(extension.r1s(["report", "run"], package, cwd=tmp_path))
    [row] = [line for line in table.splitlines() if line.strip().startswith(LABEL)]
    assert row.split()[4::3] == ["2.000", "3.000"]
    text, trajectories = page(tmp_path / "run")
    assert [t["measures"][NAME] for t in trajectories] == [1.0, 3.0, 1.0, 5.0]
    assert f"<figcaption>{LABEL}: 2.00 to 3.00</figcaption>" in text
    assert f"<th>{LABEL}</th>" in text
    assert f"<td>{LABEL}</td>" in text
    report = json.loads((tmp_path / "run" / "report.json").read_text("utf-8"))
    assert report["steps"]["step 2"][NAME]["value"] == 3.0

    compared = finished(extension.r1s(["compare", "step-1.jsonl", "step-2.jsonl"], package, cwd=tmp_path))
    [row] = [line for line in compared.splitlines() if line.strip().startswith(LABEL)]
    assert row.split()[4:7] == ["2.000", "3.000", "+1.000"]
    scored = finished(extension.r1s(["score", "step-1.jsonl", "--json"], package, cwd=tmp_path))
    assert json.loads(scored)[NAME]["value"] == 2.0


def test_an_evaluation_reports_it(
    package: Path,
    tmp_path: Path,
    index: Path,  # noqa: F811
    questions: Path,  # noqa: F811
    searcher: Any,  # noqa: F811
) -> None:
    (tmp_path / "prompt.txt").write_text("Question: {question}\n")
    settings = ["--set", f"model.prompt={tmp_path}/prompt.txt", "--set", "model.chat_template=false"]
    words = ["evaluate", searcher.url, "--dataset", str(questions), "--retriever", str(index), "--to", "to", *settings]
    table = finished(extension.r1s(words, package, cwd=tmp_path))
    assert any(line.strip().startswith(f"{LABEL} ") and " 1.000 " in line for line in table.splitlines())
    _, trajectories = page(tmp_path / "to")
    assert [t["measures"][NAME] for t in trajectories] == [1.0] * 6


def test_it_is_one_statement_and_keeps_to_the_contract(package: Path) -> None:
    code = (
        "import ast, sys, answer_words\n"
        "from r1searcher.rewards.contract import check_measure\n"
        "from tests.rewards.test_measures import trajectories\n"
        "check_measure(answer_words.ANSWER_WORDS, trajectories())\n"
    )
    finished(extension.python(code, package))
    assert extension.code_lines(BLOCKS["answer_words.py"]) <= 12


def test_a_stage_can_end_by_it(package: Path, tmp_path: Path) -> None:
    code = (
        "from r1searcher.config.settings import load\n"
        "from r1searcher.watch.rules import thresholds_reached\n"
        "settings = load('stage2', overrides={'stop.answer_words': 3})\n"
        "for words in (2.5, 3.5):\n"
        "    print(thresholds_reached([{'step': 1, 'answer_words': words}], settings))\n"
    )
    printed = finished(extension.python(code, package)).splitlines()
    assert printed == ["None", "Stop(reason='thresholds reached', detail='answer_words 3.50')"]
    done = extension.r1s(["stage1", "--set", "stop.answer_words=-1"], package, cwd=tmp_path)
    assert done.returncode == 2
    assert "stop.answer_words = -1.0: must be at least 0" in done.stderr


def test_another_name_than_its_entry_point_is_refused(tmp_path: Path) -> None:
    where = extension.install(
        tmp_path / "site",
        {"answer_words": BLOCKS["answer_words.py"]},
        {"r1searcher.measures": {"other": "answer_words:ANSWER_WORDS"}},
    )
    (tmp_path / "p.jsonl").write_text('{"question": "?", "answer": "Oslo", "prediction": "Oslo"}\n')
    done = extension.r1s(["score", "p.jsonl"], where, cwd=tmp_path)
    assert done.returncode == 2
    assert "the measure 'answer_words' has the entry point 'other': give both the same name" in done.stderr
