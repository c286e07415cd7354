"""The report of a folder, whether a run or an evaluation: report.json, report.md and report.html."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r1searcher.common import terminal
from r1searcher.common.records import Record, read_record
from r1searcher.errors import InputError
from r1searcher.evaluation.folder import DAMAGED, EvaluationFolder, EvaluationManifest
from r1searcher.report.contents import Records, report_of, side_by_side
from r1searcher.report.run import records_of_run
from r1searcher.report.tables import print_summaries
from r1searcher.report.write import write_files, write_report
from r1searcher.runs.folder import RunFolder


def records_of(manifest: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Records:
    """The records of an evaluation: its manifest, and its rows in their order."""
    return Records(title=str(manifest["model"]), manifest=manifest, trajectories=rows, grouped_by="dataset")


def run_report(folders: Sequence[Path], steps: Sequence[int], to: Path | None) -> None:
    """Write the report of runs or of evaluations into `to`, by default into the only folder, and print its tables.

    steps: of a run, those whose trajectories are shown. Raises `InputError` for any other folder, and for several
    without `to`.
    """
    if len(folders) == 1:
        report = write_report(to or folders[0], read_folder(folders[0], steps))
    elif to is None:
        raise InputError("a report of several folders needs a place of its own: give one with --to")
    else:
        names = [str(folder) for folder in folders]
        if len(set(names)) < len(names):
            raise InputError("a folder is given twice: give different ones")
        reports = {name: report_of(read_folder(folder, steps)) for name, folder in zip(names, folders, strict=True)}
        report = write_files(to, side_by_side(reports))
    print_summaries(report.summaries)
    terminal.console(stderr=True).print(f"report: {(to or folders[0]) / 'report.html'}", soft_wrap=True)


def read_folder(folder: Path, steps: Sequence[int]) -> Records:
    """The records of a run, of its `steps` if there are any, or of an evaluation. Raises `InputError`."""
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
