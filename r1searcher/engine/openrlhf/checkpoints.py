"""OpenRLHF's checkpoints in a run folder: the last saved step, and restoring the folder to it."""

import re
import shutil
from pathlib import Path

from r1searcher.common.files import read_bytes, read_rows, write_rows, write_text
from r1searcher.config.settings import read_resolved
from r1searcher.engine.openrlhf.algorithms import has_critic
from r1searcher.errors import InputError
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import read_metrics


def checkpoint_step(run: RunFolder) -> int:
    """The step of the last complete checkpoint; 0 if there is none. Raises `InputError`.

    With a critic it is the last step of which both models are saved: a kill may come between the two.
    """
    return min(_saved_step(folder) for folder in _folders(run))


def rewind(run: RunFolder) -> int:
    """Restore the run folder to its last checkpoint, from which the engine resumes; returns that step.

    Later steps are trained again, so their records would be duplicated. Raises `InputError` for a damaged file before
    anything is removed. Trajectories are removed by the step of their label: with dynamic filtering, which rolls out
    more questions than a step has, these include some that are not rolled out again.
    """
    step = checkpoint_step(run)
    read_metrics(run)  # its rows are written back unchanged, so they are checked first
    kept = [row for row in read_rows(run.metrics) if row["step"] <= step]
    for folder in _folders(run):
        if step == 0:  # a first checkpoint cut short by a kill: DeepSpeed would treat the folder as complete
            shutil.rmtree(folder, ignore_errors=True)
        elif _saved_step(folder) > step:
            _return_to(folder, step)
    if run.metrics.exists():
        write_rows(run.metrics, kept)
    for recorded, trajectories in run.recorded_steps():
        if recorded > step:
            shutil.rmtree(trajectories)
    for file in (run.stop_note, run.ending, run.stop_request):
        file.unlink(missing_ok=True)
    return step


def _folders(run: RunFolder) -> list[Path]:
    """The checkpoint folder of every model that the run trains."""
    actor, critic = run.checkpoints / "_actor", run.checkpoints / "_critic"
    trained = critic.exists() or (run.config.exists() and has_critic(read_resolved(run.config).rl))
    return [actor, critic] if trained else [actor]


def _saved_step(folder: Path) -> int:
    latest = folder / "latest"
    if not latest.exists():
        return 0
    found = re.fullmatch(r"global_step(\d{1,9})", read_bytes(latest, "the file").decode("utf-8", "replace").strip())
    if found is None:
        raise InputError(
            f"{latest} is damaged: write the name of the last complete folder next to it there, such as global_step8"
        )
    return int(found[1])


def _return_to(folder: Path, step: int) -> None:
    """The model was saved at a later step than another one of the run."""
    earlier = folder / f"global_step{step}"
    if not earlier.is_dir():
        raise InputError(f"{earlier} is missing: both models of a run must resume from the same step")
    later = folder / f"global_step{_saved_step(folder)}"
    write_text(folder / "latest", earlier.name)
    shutil.rmtree(later, ignore_errors=True)
