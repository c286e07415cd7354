"""OpenRLHF's checkpoints in a run folder: the last step saved, and the folder as it was then."""

import re
import shutil

from r1searcher.common.files import read_bytes, read_rows, write_rows
from r1searcher.errors import InputError
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import read_metrics


def checkpoint_step(run: RunFolder) -> int:
    """The step of the last whole checkpoint; 0 where there is none. Raises `InputError`."""
    latest = run.checkpoints / "_actor" / "latest"
    if not latest.exists():
        return 0
    found = re.fullmatch(r"global_step(\d{1,9})", read_bytes(latest, "the file").decode("utf-8", "replace").strip())
    if found is None:
        raise InputError(
            f"{latest} is damaged: write the name of the last whole folder beside it into it, for example global_step8"
        )
    return int(found[1])


def rewind(run: RunFolder) -> int:
    """Bring the run folder back to its last checkpoint, from which the engine goes on; returns that step.

    What was recorded after it is trained again and would be there twice. Raises `InputError` where a file is damaged,
    before anything is removed. Trajectories are removed by the step of their label: with dynamic filtering, which asks
    more questions than a step has, these are also some whose questions are not asked again.
    """
    step = checkpoint_step(run)
    read_metrics(run)  # its rows are written back as they are, so they are checked first
    kept = [row for row in read_rows(run.metrics) if row["step"] <= step]
    if step == 0:  # a first checkpoint that a kill cut short: DeepSpeed would take the folder for a whole one
        shutil.rmtree(run.checkpoints / "_actor", ignore_errors=True)
    if run.metrics.exists():
        write_rows(run.metrics, kept)
    for recorded, folder in run.recorded_steps():
        if recorded > step:
            shutil.rmtree(folder)
    for file in (run.stop_note, run.ending, run.stop_request):
        file.unlink(missing_ok=True)
    return step
