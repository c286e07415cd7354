"""OpenRLHF's checkpoints in a run folder: the last saved step, and restoring the folder to it."""

import re
import shutil

from r1searcher.common.files import read_bytes, read_rows, write_rows
from r1searcher.errors import InputError
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import read_metrics


def checkpoint_step(run: RunFolder) -> int:
    """The step of the last complete checkpoint; 0 if there is none. Raises `InputError`."""
    latest = run.checkpoints / "_actor" / "latest"
    if not latest.exists():
        return 0
    found = re.fullmatch(r"global_step(\d{1,9})", read_bytes(latest, "the file").decode("utf-8", "replace").strip())
    if found is None:
        raise InputError(
            f"{latest} is damaged: write the name of the last complete folder next to it there, such as global_step8"
        )
    return int(found[1])


def rewind(run: RunFolder) -> int:
    """Restore the run folder to its last checkpoint, from which the engine resumes; returns that step.

    Later steps are trained again, so their records would be duplicated. Raises `InputError` for a damaged file before
    anything is removed. Trajectories are removed by the step of their label: with dynamic filtering, which rolls out
    more questions than a step has, these include some that are not rolled out again.
    """
    step = checkpoint_step(run)
    read_metrics(run)  # its rows are written back unchanged, so they are checked first
    kept = [row for row in read_rows(run.metrics) if row["step"] <= step]
    if step == 0:  # a first checkpoint cut short by a kill: DeepSpeed would treat the folder as complete
        shutil.rmtree(run.checkpoints / "_actor", ignore_errors=True)
    if run.metrics.exists():
        write_rows(run.metrics, kept)
    for recorded, folder in run.recorded_steps():
        if recorded > step:
            shutil.rmtree(folder)
    for file in (run.stop_note, run.ending, run.stop_request):
        file.unlink(missing_ok=True)
    return step
