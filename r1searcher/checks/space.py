"""Whether the disk holds the checkpoints, and this machine's memory the states that leave the GPUs."""

import shutil
from pathlib import Path

from r1searcher.checks.base import RL_STAGES, Check, Skip, StageInputs
from r1searcher.common.files import nearest_folder
from r1searcher.engine.cluster.address import cluster_address
from r1searcher.engine.cluster.facts import machine_memory
from r1searcher.engine.cluster.problems import memory_problem
from r1searcher.errors import InputError, R1Error
from r1searcher.planning.memory import GIB, host_memory, kept_on_disk
from r1searcher.planning.shapes import ModelShape, shape_of


def _disk(inputs: StageInputs) -> None:
    """The disk of `output` holds the checkpoints and the model of the stage."""
    run = inputs.run
    needed = kept_on_disk(inputs.settings, model_shape(inputs)) - _bytes_in(run.checkpoints)
    free = shutil.disk_usage(nearest_folder(run.path)).free
    if needed > free:
        raise InputError(
            f"output: the checkpoints and the model take about {needed / GIB:.1f} GiB, and {run.path.parent} has "
            f"{free / GIB:.1f} GiB free; choose another folder, or lower checkpoint.keep (at least 2 are kept)"
        )


def _host_memory(inputs: StageInputs) -> None:
    """This machine's memory holds the states that are not, or not always, on the GPUs."""
    topology = inputs.topology
    if topology is None or topology.device == "cpu":
        raise Skip("nothing leaves a GPU")
    if cluster_address(inputs.settings):
        raise Skip("the run is trained on a Ray cluster, whose nodes are asked")
    needed = host_memory(inputs.settings, topology, model_shape(inputs))
    present = machine_memory()
    if needed > present:
        cause = "engine.adam_offload" if inputs.settings.engine.adam_offload else "engine.colocate"
        problem = memory_problem(needed, present, "this machine's")
        raise InputError(f"{cause}: {problem}")


def model_shape(inputs: StageInputs) -> ModelShape:
    """The shape of the stage's model. Raises `Skip` where it is not known."""
    try:
        return shape_of(inputs.model or inputs.settings.model.path)
    except R1Error as error:
        raise Skip(str(error)) from error


def _bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


disk = Check(_disk, stages=RL_STAGES, costly=True)
host = Check(_host_memory, stages=RL_STAGES, costly=True)
