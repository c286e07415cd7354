"""The SLURM script starts a cluster of two nodes and runs its four commands.

Ray and the commands are real; `srun` and `scontrol` are not: both nodes are this machine.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from r1searcher.evaluation.predictions import read_predictions
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import read_summary
from tests.engine.nodes import free_port
from tests.engine.toy import HANG, World, make_world, one_thread, towns_and_regions, write_rows

SCRIPT = Path(__file__).parents[2] / "examples" / "slurm" / "train.sbatch"

SRUN = '#!/bin/sh\nwhile [ "${1#-}" != "$1" ]; do shift; done\nexec "$@"\n'
"""Without the options, on this machine."""

SCONTROL = "#!/bin/sh\n[ \"$*\" = 'show hostnames one,two' ] && printf '127.0.0.1\\n127.0.0.2\\n'\n"


def slurm(folder: Path, port: int) -> dict[str, str]:
    """The environment of a job on two nodes, with a GPU each."""
    commands = {"srun": SRUN, "scontrol": SCONTROL}
    for command, text in {**commands, "r1s": f'#!/bin/sh\nexec {sys.executable} -m r1searcher.cli "$@"\n'}.items():
        (folder / command).write_text(text)
        (folder / command).chmod(0o755)
    return {
        **one_thread(),
        "PATH": os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "SLURM_JOB_ID": str(port - 20000),
        "SLURM_JOB_NODELIST": "one,two",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_GPUS_ON_NODE": "1",
        "SLURM_CPUS_ON_NODE": "4",
    }


@pytest.mark.long
@pytest.mark.training
def test_the_script_trains_on_two_nodes_and_repeats_nothing(tmp_path: Path) -> None:
    world: World = make_world(tmp_path / "world")
    folder, tools = world.folder, tmp_path / "bin"
    tools.mkdir()
    (folder / "index").rename(folder / "elsewhere")  # the script builds it
    towns = [
        {"id": town, "title": town, "text": f"{town} is in {region}."} for town, region in towns_and_regions().items()
    ]
    write_rows(folder / "passages.jsonl", towns)
    text = world.settings.read_text().replace("steps = 6", "steps = 2").replace("[engine]", "[engine]\ncolocate = true")
    world.settings.write_text(text)
    port = free_port(range(20000, 30000))  # those that the script takes
    command = ["bash", str(SCRIPT), "settings.toml", "passages.jsonl", "questions.jsonl"]
    done = subprocess.run(
        command, cwd=folder, env=slurm(tools, port), capture_output=True, text=True, timeout=HANG, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for stage in ("stage1", "stage2"):
        assert (read_summary(RunFolder(folder / "runs" / stage)) or {})["steps"] == 2
    (predictions,) = folder.glob("runs/evaluate/*/predictions.jsonl")
    assert len(list(read_predictions(predictions))) == 96
    again = subprocess.run(
        command, cwd=folder, env=slurm(tools, port), capture_output=True, text=True, timeout=HANG, check=False
    )
    assert again.returncode == 0, again.stderr[-4000:]
    assert " ".join(again.stderr.split()).count("is finished; its model is in") == 2
