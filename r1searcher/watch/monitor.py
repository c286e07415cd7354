"""Processes a step's metrics: records them, evaluates the rules, writes their decision to the run folder."""

import math
import time
from collections.abc import Mapping
from typing import Any

from r1searcher.common.files import append_row, write_json, write_text
from r1searcher.config.settings import Settings
from r1searcher.errors import R1Error, RunStopped
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import StopDecision, add_heartbeat, read_metrics
from r1searcher.watch.rules import RULES, Alarm, Notice, Rows, Rule, Stop


class StepMonitor:
    """Watches the run whose folder is `run`, in the process that trains it. `rules` are evaluated in order."""

    def __init__(self, run: RunFolder, settings: Settings, rules: Mapping[str, Rule] = RULES) -> None:
        self.run, self.settings = run, settings
        self.rules = dict(rules)  # imported now, to report import errors before training
        self._noticed: set[str] = set()  # rules whose notice was shown and is not over

    def step(self, step: int, metrics: Mapping[str, Any]) -> StopDecision | None:
        """Record one step; returns a `StopDecision` if the stage ends with it. Raises `RunStopped` for an alarm."""
        earlier = read_metrics(self.run)
        row = record(self.run, step, metrics)
        decision = self._asked(step)
        for name in self.rules:
            found = self._ask(name, [*earlier, row])
            if isinstance(found, Alarm):
                sentence = f"step {step}: {found.message}"
                write_text(self.run.stop_note, sentence + "\n")
                raise RunStopped(sentence)
            if isinstance(found, Notice):
                self._show(name, f"step {step}: {found.message}")
                continue
            self._over(name, step)
            if found is not None and decision is None:
                decision = StopDecision(reason=found.reason, step=step, detail=found.detail)
        if decision is not None:
            write_json(self.run.ending, decision.model_dump())
        return decision

    def _show(self, name: str, sentence: str) -> None:
        if name not in self._noticed:
            self._noticed.add(name)
            add_heartbeat(self.run, "trainer", sentence)

    def _over(self, name: str, step: int) -> None:
        if name in self._noticed:
            self._noticed.remove(name)
            add_heartbeat(self.run, "trainer", f"step {step}: {name} is over")

    def _ask(self, name: str, rows: Rows) -> Alarm | Notice | Stop | None:
        try:
            found = self.rules[name](rows, self.settings)
        except R1Error:
            raise
        except Exception as error:  # a rule of another package
            raise R1Error(f"the watch rule {name!r} failed: {type(error).__name__}: {error}") from error
        if found is None or isinstance(found, (Alarm, Notice, Stop)):
            return found
        raise R1Error(f"the watch rule {name!r} returned {found!r}; a rule returns an Alarm, a Notice, a Stop or None")

    def _asked(self, step: int) -> StopDecision | None:
        return StopDecision(reason="asked", step=step) if self.run.stop_request.exists() else None


def record(run: RunFolder, step: int, metrics: Mapping[str, Any]) -> dict[str, float]:
    """Append a step to `metrics.jsonl`: all its numbers; those that are not finite become null there.

    Returns the row with the original numbers.
    """
    row = {key: float(value) for key, value in metrics.items() if isinstance(value, (int, float))}
    written = {key: value if math.isfinite(value) else None for key, value in row.items()}
    append_row(run.metrics, {"step": step, "time": time.time(), **written})
    return {"step": step, **row}
