"""The files of a report: report.json, report.md and report.html, of a run or of an evaluation."""

from pathlib import Path

from r1searcher.common.files import write_bytes, write_json
from r1searcher.report.contents import Records, Report, report_of
from r1searcher.report.page import render_page
from r1searcher.report.tables import as_markdown


def write_report(to: Path, records: Records) -> Report:
    """Write the three files into the folder `to`. Raises `FileError`."""
    return write_files(to, report_of(records))


def write_files(to: Path, report: Report) -> Report:
    """Like `write_report`, for a report that is computed already."""
    write_json(to / "report.json", report.as_json())
    write_bytes(to / "report.md", as_markdown(report).encode("utf-8", "replace"))
    write_bytes(to / "report.html", render_page(report).encode("utf-8", "replace"))
    return report
