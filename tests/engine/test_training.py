"""The whole engine on a model of 0.4 M parameters: SFT, a stage that learns, a kill -9 and what comes after it.

Real parts throughout: the commands, Ray, vLLM, DeepSpeed, OpenRLHF, the index. Takes some minutes on two cores.
"""

import json
import os
import signal
import sqlite3
import subprocess
import time
from contextlib import closing

import pytest

from r1searcher.common.files import read_rows
from r1searcher.engine.openrlhf.checkpoints import checkpoint_step
from r1searcher.retrieval.base import clean_query
from r1searcher.rewards.measures import EM, F1, FORMAT, MEASURES, RETRIEVAL, SEARCHES
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import trajectory_rows
from tests.engine.toy import HANG, TOWNS, one_thread
from tests.processes import with_variable

pytestmark = pytest.mark.training
pytest.importorskip("openrlhf")
pytest.importorskip("vllm")

SAMPLES = 64
"""Episodes per step."""


def test_the_engine_learns_to_search(world):
    """With a chain: two rankings are fused, and recorded by all processes."""
    recording = world.folder / "searches.sqlite"
    fused = {"kind": "fusion", "of": [str(world.folder / "index")] * 2}
    world = world.with_retrieval("chain", {"kind": "cache", "file": str(recording), "of": fused})
    run = world.stage1("learns", "--steps", "9")
    rows = list(read_rows(run.metrics))
    assert [row["step"] for row in rows] == list(range(1, 10))
    rates = [row["retrieval"] for row in rows]
    # 64 episodes per step: the standard error of a difference of two such rates is below .09.
    assert rates[0] < 0.65, rates
    assert min(rates[-2:]) > rates[0] + 0.27, rates
    assert all(abs(row["vllm_kl"]) < 1e-3 for row in rows), "rollouts come from the trained weights"
    for step, row in enumerate(rows, start=1):
        episodes = list(trajectory_rows(run.trajectories(step)))
        assert len(episodes) == SAMPLES
        assert {(episode["step"], episode["epoch"]) for episode in episodes} == {(step, 1)}
        assert {episode["weights_step"] for episode in episodes} == {step - 1}
        assert sum(bool(e["searches"]) for e in episodes) / SAMPLES == pytest.approx(row["retrieval"])
        for searched in (searched for episode in episodes for searched in episode["searches"]):
            assert [span["link"] for span in searched["spans"]][-1] in ("fusion", "cache")
            assert searched["hits"] or searched["query"].strip() not in TOWNS
    assert (run.model / "model.safetensors").exists()

    world.run("report", str(run.path))
    report = json.loads((run.path / "report.json").read_text("utf-8"))
    assert [row["step"] for row in report["metrics"]] == list(range(1, 10))
    for name in ("step 1", "step 9"):  # what the engine averaged, and what the recorded episodes give
        logged = rows[int(name.removeprefix("step ")) - 1]
        assert logged.keys() >= {m.name for m in MEASURES.values() if m.compute}
        for m in (EM, F1, FORMAT, RETRIEVAL, SEARCHES):
            assert report["steps"][name][m.name]["value"] == pytest.approx(logged[m.name], abs=1e-5)

    questions, to = str(world.folder / "questions.jsonl"), world.folder / "evaluated-chain"
    world.run("evaluate", str(run.path), "--dataset", questions, "--limit", "4", "--to", str(to))
    evaluated = json.loads((to / "report.json").read_text("utf-8"))["manifest"]["retriever"]
    index = json.loads(run.manifest.read_text("utf-8"))["index"]
    assert index["name"] == f"{fused['of'][0]} + {fused['of'][1]} -> rrf -> cache:{recording}"
    assert evaluated.items() >= index.items()
    assert (evaluated["kind"], evaluated["of"]["kind"]) == ("cache", "fusion")
    with closing(sqlite3.connect(recording)) as file:
        recorded = {query for (query,) in file.execute("SELECT query FROM searches")}
    searched = {s["query"] for n in range(1, 10) for e in trajectory_rows(run.trajectories(n)) for s in e["searches"]}
    assert recorded >= {clean_query(query) for query in searched}


@pytest.mark.long
def test_the_guard_stops_a_run_whose_rollouts_drift(world):
    """Rounding alone is the drift here, under a limit that is smaller still."""
    run = world.folder_of("guarded")
    words = world.stage_words("guarded", "--set", "engine.vllm_kl_limit=1e-12", "--set", "checkpoint.every=1")
    command = world.command(*words)
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, env=one_thread())
    said = " ".join(done.stderr.split())
    assert done.returncode == 1, said
    assert "the rollouts no longer come from the trained weights" in said
    assert "Traceback" not in said
    stopped = [row["step"] for row in read_rows(run.metrics)][-1]
    assert checkpoint_step(run) == stopped - 1, "the step that is not trusted leaves no checkpoint"
    assert not (run.path / "summary.json").exists()


def test_a_stage_killed_and_interrupted_in_the_middle_goes_on_with_the_data_in_order(world):
    last = 24  # many seconds of work are left when the third step is seen, on a fast machine too
    words = world.stage_words("killed", "--steps", str(last), stage="stage2")
    run = world.folder_of("killed")

    child = until_step(3, run, world.command(*words))
    launch = json.loads((run.path / "launch.json").read_text())["launch"]
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert checkpoint_step(run) in range(2, last, 2)
    wait_for(lambda: not with_variable(launch))  # nothing continues training without its launcher

    recorded = len(list(read_rows(run.metrics)))  # what was recorded after the checkpoint is replaced
    child = until_step(recorded + 1, run, world.command(*words))
    os.kill(child.pid, signal.SIGINT)
    assert child.wait(timeout=HANG) == 130
    assert not (run.path / "summary.json").exists(), "an interrupted stage is not a finished one"
    assert checkpoint_step(run) == len(list(read_rows(run.metrics))), "nothing that was trained is lost"

    world.run(*words)
    assert [row["step"] for row in read_rows(run.metrics)] == list(range(1, last + 1))
    order = [json.loads(row["label"])["id"] for row in read_rows(run.questions)]
    assert len(order) == 8 * last
    for step in range(1, last + 1):
        assert ids(run, step) == sorted(order[8 * (step - 1) : 8 * step]), "the questions of its place in the order"
    assert all(len(set(order[start : start + 96])) == 96 for start in (0, 96)), "each question once per pass"


def until_step(
    step: int, run: RunFolder, command: list[str], stderr: int = subprocess.DEVNULL
) -> "subprocess.Popen[bytes]":
    """The command at work, when it has finished that step."""
    child = subprocess.Popen(
        command, env=one_thread(), stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True
    )
    wait_for(lambda: step in {row["step"] for row in read_rows(run.metrics)} or child.poll() is not None)
    assert child.poll() is None, run.log.read_text()[-4000:]
    return child


def ids(run: RunFolder, step: int) -> list[str]:
    episodes = [episode["id"] for episode in trajectory_rows(run.trajectories(step))]
    assert len(episodes) == SAMPLES
    return sorted(set(episodes))


def wait_for(condition, seconds: float = HANG) -> None:
    """Until `condition` holds. `seconds` only keeps a test that would never end from hanging."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not within {seconds:.0f} s"
        time.sleep(0.1)
