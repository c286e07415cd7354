"""Consecutive stages, each starting from the model of the previous one."""

from pathlib import Path

from r1searcher.common import terminal
from r1searcher.config.settings import STAGES, Stage
from r1searcher.config.source import SettingsSource
from r1searcher.runs.folder import RunFolder
from r1searcher.stages.sft import train_sft
from r1searcher.stages.stage import evaluate_stage, train_stage


def run_chain(source: SettingsSource) -> list[RunFolder]:
    """SFT (if the settings name traces), stage 1 and stage 2, each in its own folder inside the run's."""
    console = terminal.console(stderr=True)
    stages: list[Stage] = [s for s in STAGES if s != "sft" or source.load(s).data.traces]
    # All settings are read before the first stage starts: a mistake in the last one must not cost hours.
    settings = {stage: source.load(stage) for stage in stages}
    runs: list[RunFolder] = []
    for stage in stages:
        chosen = settings[stage]
        run = RunFolder(Path(chosen.output) / (chosen.name or "run") / stage)
        if runs:
            chosen = source.load(stage, {"model.path": str(runs[-1].model)})
        if stage == "sft":
            train_sft(chosen, run, console)
        else:
            train_stage(stage, chosen, run, console)
            evaluate_stage(chosen, run, console)
        runs.append(run)
    return runs
