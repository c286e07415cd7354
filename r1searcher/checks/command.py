"""What the command `check` does."""

from r1searcher.checks.base import StageInputs, Status
from r1searcher.checks.runner import run_checks
from r1searcher.common import terminal
from r1searcher.common.terminal import json_line
from r1searcher.config.settings import Stage
from r1searcher.config.source import SettingsSource
from r1searcher.errors import InputError
from r1searcher.planning.derive import complete

_STYLES = {Status.OK: "green", Status.WARNING: "yellow", Status.PROBLEM: "red", Status.SKIPPED: "dim"}
_SAID = {Status.PROBLEM: "error"}


def run_check(source: SettingsSource, stage: Stage, *, queries: int, as_json: bool = False) -> None:
    """Print a line per item. Raises `InputError` if any found a problem."""
    from rich.text import Text

    inputs = StageInputs(stage, complete(source.load(stage), stage).settings, queries=queries)
    screen, rows = terminal.console(), []
    for result in run_checks(inputs, thorough=True):
        said = _SAID.get(result.status, result.status.value)
        rows.append({"check": result.name, "status": said, "message": result.message})
        if not as_json:
            screen.print(Text.assemble((f"{said:8}", _STYLES[result.status]), f"{result.name:20}", result.message))
    if as_json:
        json_line({"stage": stage, "checks": rows})
    if problems := sum(row["status"] == "error" for row in rows):
        raise InputError(f"{problems} of {len(rows)} checks of {stage} found a problem")
