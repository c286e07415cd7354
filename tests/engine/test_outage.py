"""A search engine that goes away in the middle of a stage: the run waits, stops with the reason, and loses nothing.

Real parts throughout: the stage, and `r1s serve` killed and started again.
"""

import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from r1searcher.common.files import read_rows
from r1searcher.engine.openrlhf.checkpoints import checkpoint_step
from r1searcher.runs.records import read_heartbeats, trajectory_rows
from tests.engine.test_training import wait_for
from tests.engine.toy import HANG, TOWNS, World

pytestmark = pytest.mark.training


@contextmanager
def serving(world: World, port: int) -> Iterator[None]:
    server = subprocess.Popen(world.command("serve", str(world.folder / "index"), "--port", str(port)))
    try:
        wait_for(lambda: answers(port))
        yield
    finally:
        server.kill()
        server.wait()


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def test_an_outage_stops_the_run_with_its_checkpoint_and_never_becomes_a_reward(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    run = world.folder_of("outage")
    words = world.stage_words("outage", "--retriever", f"http://127.0.0.1:{port}/retrieve", "--steps", "4")
    words += ("--set", "retrieval.retry_timeout_s=3", "--set", "checkpoint.every=1")
    with serving(world, port):
        child = subprocess.Popen(world.command(*words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        wait_for(lambda: checkpoint_step(run) >= 1 or child.poll() is not None)
    said, _ = child.communicate(timeout=HANG)
    assert child.returncode == 1, said
    assert "the search engine has been down for" in " ".join(said.split())
    assert "Traceback" not in said
    finished = checkpoint_step(run)
    assert 1 <= finished < 4
    said = [beat.message for beat in read_heartbeats(run)]
    assert sum("waiting for the search engine" in sentence for sentence in said) == 1, "once per outage"

    with serving(world, port):
        world.run(*words)
    rows = list(read_rows(run.metrics))
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    for step in range(1, 5):
        for episode in trajectory_rows(run.trajectories(step)):
            for search in episode["searches"]:  # a town is always found, unless an outage was treated as an answer
                assert search["hits"] or search["query"] not in TOWNS
