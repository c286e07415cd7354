"""A disk that is full, or a folder that may not be written: one sentence, and what was there is as it was (C.6)."""

import contextlib
import json
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from r1searcher.common import terminal
from r1searcher.common.files import write_rows
from r1searcher.config.settings import Settings
from r1searcher.config.template import write_template
from r1searcher.engine.training_rows import Prompt, write_prompts
from r1searcher.errors import FileError, InputError
from r1searcher.evaluation.evaluate import EvaluationRequest, evaluate
from r1searcher.evaluation.reports import records_of
from r1searcher.questions.question import Question
from r1searcher.report.plots import StageCurve, save_curves
from r1searcher.report.write import write_report
from r1searcher.runs.folder import RunFolder
from r1searcher.stages.prepare import write_run_metadata


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A folder and what makes its disk full: a real file system of 256 KiB, or a limit on the size of files where no
    file system may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:
        if not mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
            return
        with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(b"x" * 4096)

    yield folder, fill
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)


FULL = "disk is full|larger than is allowed"
ROW: dict[str, Any] = {
    "dataset": "d",
    "index": 0,
    "sample": 0,
    "seconds": 1.0,
    "question": "q",
    "gold_answers": ["a"],
    "stop": "answered",
    "segments": [],
    "searches": [],
}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f): f.read_bytes() for f in folder.rglob("*") if f.is_file() and f.name != "filler"}


def test_a_report_that_does_not_fit_leaves_the_old_one(small_disk: Any) -> None:
    folder, fill = small_disk
    manifest = {"model": "m"}
    write_report(folder, records_of(manifest, [ROW]))
    before = contents(folder)
    assert set(before) == {str(folder / f"report.{kind}") for kind in ("json", "md", "html")}
    fill()
    with pytest.raises(FileError, match=FULL):
        write_report(folder, records_of({"model": "m" * 300_000}, [ROW] * 500))
    assert contents(folder) == before


def test_an_evaluation_on_a_full_disk_goes_on_later(
    small_disk: Any, index: Path, questions: Path, searcher: Any, tmp_path: Path
) -> None:
    folder, fill = small_disk
    (tmp_path / "prompt.txt").write_text("Question: {question}\n")
    overrides = {"retrieval.url": str(index), "model.prompt": f"{tmp_path}/prompt.txt", "model.chat_template": False}
    request = EvaluationRequest(
        model=searcher.url, datasets=[str(questions)], to=folder / "to", overrides=overrides, concurrency=1
    )
    quiet = terminal.console(file=(tmp_path / "log").open("w"))
    answer = searcher.answer
    calls = []

    def fills_in_the_middle(path: str, body: Any) -> Any:
        calls.append(path)
        if len(calls) == 5:
            fill()
        return answer(path, body)

    searcher.answer = fills_in_the_middle
    with pytest.raises(FileError, match=FULL):
        evaluate(request, quiet)
    rows = (folder / "to" / "predictions.jsonl").read_bytes().split(b"\n")[:-1]
    assert 1 <= len(rows) < 6
    assert all(json.loads(row)["dataset"] == "capitals" for row in rows)
    searcher.answer = answer
    (folder / "filler").unlink(missing_ok=True)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert evaluate(request, quiet)["capitals"].n == 6
    assert (folder / "to" / "predictions.jsonl").read_bytes().split(b"\n")[: len(rows)] == rows


def test_a_run_folder_on_a_full_disk_is_one_sentence(small_disk: Any) -> None:
    folder, fill = small_disk
    run = RunFolder(folder / "run")
    run.path.mkdir()
    fill()
    settings = Settings.model_validate({"rl": {"questions_per_step": 4, "samples_per_question": 2, "batch_size": 8}})
    with pytest.raises(FileError, match=FULL):
        write_prompts(run, [Prompt("prompt" * 1000, Question("1", "q", ("a",)))] * 100, settings)
    with pytest.raises(FileError, match=FULL):
        write_run_metadata(run, settings, {"stage": "stage1", "settings_sha256": "x"})
    with pytest.raises(FileError, match=FULL):
        save_curves({"": [StageCurve(name="stage 1", rows=[{"step": 1, "f1": 0.5}])]}, run.path / "curve.png", "t")
    with pytest.raises(FileError, match=FULL):
        write_template(run.path / "settings.toml")
    assert [name for name, data in contents(run.path).items() if data and not name.endswith(("png", "toml"))] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not write")
@pytest.mark.parametrize("write", ["template", "prompts", "report", "evaluation"])
def test_a_folder_that_may_not_be_written_is_one_sentence(
    write: str, small_disk: Any, index: Path, questions: Path
) -> None:
    folder, _ = small_disk
    folder.chmod(0o755)
    actions: dict[str, Callable[[], Any]] = {
        "template": lambda: write_template(Path("settings.toml")),
        "prompts": lambda: write_rows(Path("run/rows.jsonl"), [{"a": 1}]),
        "report": lambda: write_report(Path(), records_of({"model": "m"}, [ROW])),
        "evaluation": lambda: write_report(Path("to"), records_of({"model": "m"}, [ROW])),
    }
    if write != "template":
        write_report(folder, records_of({"model": "m"}, [ROW]))  # imports, while we may
    with contextlib.chdir(folder):
        os.seteuid(65534)
        try:
            with pytest.raises((FileError, InputError), match="permission denied"):
                actions[write]()
        finally:
            os.seteuid(0)
