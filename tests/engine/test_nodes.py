"""Training, SFT and evaluation across two Ray node processes on this machine, and what a kill -9 of one leaves."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1searcher.common.files import read_rows
from r1searcher.engine.openrlhf.checkpoints import checkpoint_step
from r1searcher.evaluation.predictions import read_predictions
from tests import extension
from tests.engine.nodes import THIRD, Cluster, cluster
from tests.engine.test_training import ids, until_step, wait_for
from tests.engine.toy import HANG, World, one_thread

pytestmark = pytest.mark.training
pytest.importorskip("openrlhf")
pytest.importorskip("vllm")

COLOCATED = ("engine.nodes=2", "engine.colocate=true", "checkpoint.every=1")
"""Two processes train, and each shares its logical GPU with a vLLM engine. The nodes have one each."""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("nodes")) as made:
        yield made


def words(world: World, name: str, address: str, *more: str) -> list[str]:
    """The command of a stage on the cluster, on both nodes."""
    chosen = (f'engine.ray_address="{address}"', *COLOCATED, *more)
    return world.command(*world.stage_words(name, *(word for key in chosen for word in ("--set", key))))


def ended(command: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=HANG, env=one_thread(), check=False)


def test_what_a_node_lacks_is_said_before_anything_is_started(world: World, nodes: Cluster, tmp_path: Path) -> None:
    """A third node with other mounts and another package; the two others have what they need."""
    private = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    if subprocess.run([*private, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not allow a private mount")
    other = extension.install(tmp_path / "other", {}, {}, name="tantivy")  # version 1.0
    hidden = " && ".join(f"mount -t tmpfs none {world.folder / name}" for name in ("runs", "model", "index"))
    inside = [*private, "sh", "-c", f'{hidden} && exec "$@"', "sh"]
    path = os.pathsep.join([str(other), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = words(world, "refused", nodes.address, f'model.path="{world.folder / "model"}"')
    command = [word for word in command if word not in ("--from", str(world.folder_of("sft").path))]
    with nodes.another(THIRD, inside, PYTHONPATH=path):
        refused = ended(command)
    lines = refused.stderr.strip().splitlines()
    assert refused.returncode == 2
    assert lines[0] == "r1s: nothing was started:"
    host = os.uname().nodename
    said = [line.strip().removeprefix(f"node {THIRD} ({host}): ") for line in lines[1:]]
    folder, model, package, retriever = said
    assert folder.startswith(f"{world.folder / 'runs' / 'refused'} is another folder there; put `output` into a folder")
    assert model.startswith(f"the model {world.folder / 'model'} is not there; copy it")
    assert package.startswith("tantivy 1.0 instead of")
    assert retriever.startswith(f"the retriever does not answer there: {world.folder / 'index'} is a folder without an")
    assert not world.folder_of("refused").path.exists()
    assert not list((world.folder / "runs").glob(".r1s-probe*"))


KEYS = """
import os, sys, time
from pathlib import Path
import ray
from r1searcher.engine.cluster.join import joined, take_keys

def seen():
    lines = [file.read_bytes() for file in Path("/proc").glob("[0-9]*/cmdline")]
    return os.environ["TEST_KEY"], [line for line in lines if os.environ["TEST_KEY"].encode() in line]

with joined(sys.argv[1], {"PLAIN": "x"}, {"TEST_KEY": os.environ["TEST_KEY"]}, f"{take_keys.__module__}.take_keys"):
    print(ray.get(ray.remote(num_cpus=0)(seen).remote()))
"""


def test_keys_reach_workers_and_are_on_no_command_line_and_in_no_file(nodes: Cluster) -> None:
    """Ray writes the environment variables of workers into a command line, and into its log."""
    secret = uuid.uuid4().hex
    here = {**os.environ, "TEST_KEY": secret}
    done = subprocess.run([sys.executable, "-c", KEYS, nodes.address], env=here, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == str((secret, [])), done.stderr
    files = [file for file in nodes.ray.rglob("*") if file.is_file()]
    assert files
    assert not [file for file in files if secret.encode() in file.read_bytes()]


def test_sft_and_evaluation_run_on_a_node_of_the_cluster(world: World, nodes: Cluster) -> None:
    address = f'engine.ray_address="{nodes.address}"'
    world.run("sft", str(world.settings), "--name", "there", "--steps", "2", "--set", address)
    run = world.folder_of("there")
    assert "(run_here pid=" in run.log.read_text("utf-8"), "Ray's name of the task"
    assert [row["step"] for row in read_rows(run.metrics)] == [1, 2]
    to = world.folder / "evaluated"
    limits = ("--limit", "4", "--to", str(to))
    world.run("evaluate", str(run.path), "--dataset", str(world.folder / "questions.jsonl"), *limits)
    assert len(list(read_predictions(to / "predictions.jsonl"))) == 4


def test_a_run_on_two_nodes_survives_the_kill_of_one(world: World, nodes: Cluster, tmp_path: Path) -> None:
    steps, run = 8, world.folder_of("two")
    command = words(world, "two", nodes.address, f"rl.steps={steps}")
    child = until_step(2, run, command, stderr=subprocess.PIPE)
    for node in nodes.nodes:
        assert sum(name.startswith("PolicyModelActor") for name in node.workers()) == 1, list(node.workers())
    nodes.nodes[1].kill()
    said = child.communicate(timeout=HANG)[1].decode()
    assert child.returncode == 1, said
    line = said.strip().splitlines()[-1]
    assert line.startswith("r1s: a process of the engine was lost, perhaps with its node: on a cluster, `ray"), said
    assert "Traceback" not in said
    saved = checkpoint_step(run)
    assert 1 <= saved < steps
    wait_for(lambda: not list(nodes.nodes[0].workers()))  # nothing continues training on the other node

    with cluster(tmp_path) as new:
        done = ended(words(world, "two", new.address, f"rl.steps={steps}"))
    assert done.returncode == 0, done.stderr
    assert [row["step"] for row in read_rows(run.metrics)] == list(range(1, steps + 1))
    order = [json.loads(row["label"])["id"] for row in read_rows(run.questions)]
    for step in range(1, steps + 1):
        assert ids(run, step) == sorted(order[8 * (step - 1) : 8 * step]), "the questions of its place in the order"
