"""The report of a folder, whether a run or an evaluation: report.json, report.md and report.html."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r1searcher.common import terminal
from r1searcher.common.records import Record, read_record
from r1searcher.errors import InputError
from r1searcher.evaluation.folder import DAMAGED, EvaluationFolder, EvaluationManifest
from r1searcher.report.contents import Records
from r1searcher.report.run import records_of_run
from r1searcher.report.tables import print_summaries
from r1searcher.report.write import write_report
from r1searcher.runs.folder import RunFolder


def records_of(manifest: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Records:
    """The records of an evaluation: its manifest, and its rows in their order."""
    return Records(title=str(manifest["model"]), manifest=manifest, trajectories=rows, grouped_by="dataset")


def run_report(folder: Path, steps: Sequence[int], to: Path | None) -> None:
    """Write the report of a run or an evaluation into `to`, by default into its own folder, and print its tables.

    steps: of a run, those whose trajectories are shown. Raises `InputError` for any other folder.
    """
    report = write_report(to or folder, _read(folder, steps))
    print_summaries(report.summaries)
    terminal.console(stderr=True).print(f"report: {(to or folder) / 'report.html'}", soft_wrap=True)


def _read(folder: Path, steps: Sequence[int]) -> Records:
    if not (folder / "manifest.json").is_file():
        raise InputError(f"{folder} is not a run or an evaluation: it has no manifest.json")
    manifest = read_record(folder / "manifest.json", Record, DAMAGED).model_dump()  # in the order of the file
    if "stage" in manifest:
        return records_of_run(RunFolder(folder), steps)
    if steps:
        raise InputError(f"{folder} is an evaluation: it has no steps; leave out --step")
    evaluation = EvaluationFolder(folder)
    checked = read_record(evaluation.manifest, EvaluationManifest, DAMAGED)
    rows = evaluation.ordered(list(checked.datasets))
    if not rows:
        raise InputError(f"{folder} has no episodes yet: finish the evaluation with the command that began it")
    return records_of(manifest, rows)
