"""Training with a simulated search engine, and the SFT of its model. The model of the engine is a script."""

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from r1searcher.common.files import read_rows
from r1searcher.engine.openrlhf.checkpoints import checkpoint_step
from r1searcher.retrieval.base import EpisodeContext
from r1searcher.retrieval.engines.simulated import Settings, is_noisy, noise
from r1searcher.retrieval.registry import settings_of_table
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import trajectory_rows
from tests.common.chat_server import chat_server
from tests.engine.test_training import until_step, wait_for
from tests.engine.toy import World, write_rows
from tests.processes import with_variable

pytestmark = [pytest.mark.training, pytest.mark.long]
pytest.importorskip("openrlhf")
pytest.importorskip("vllm")

STEPS = 10
TABLE: dict[str, Any] = {"model": "m", "steps": STEPS, "noise_start": 0.2, "noise_end": 0.8, "seed": 11}


def document(body: dict[str, Any]) -> str:
    answer = re.search(r"^Its answer: (.*)$", body["messages"][0]["content"], re.MULTILINE)
    assert answer
    return f"Document 1: page | it is in {answer[1]}."


def draws(run: RunFolder, engine: Settings) -> dict[tuple[int, str], str]:
    """Step and question -> what the spans of its searches say; all of them must say what the formula says."""
    found: dict[tuple[int, str], str] = {}
    for step in range(1, STEPS + 1):
        for episode in trajectory_rows(run.trajectories(step)):
            for searched in episode["searches"]:
                context = EpisodeContext(
                    id=episode["id"],
                    question=episode["question"],
                    gold_answers=tuple(episode["gold_answers"]),
                    step=step,
                    search=1,
                )
                kind = "noisy" if is_noisy(engine, context) else "useful"
                [span] = [span["link"] for span in searched["spans"] if span["link"].startswith("simulated")]
                assert span == f"simulated, {kind} (noise {noise(engine, step):.4f})"
                found[step, episode["id"]] = kind
    return found


def test_a_run_that_was_killed_draws_the_same_noise_as_one_that_was_not(world: World) -> None:
    """The toy model searches in few episodes, so the runs have few questions of a step in common: all are compared."""
    with chat_server(document) as served:
        table = {"kind": "simulated", "url": f"simulated:{served.url}", **TABLE}
        engine = settings_of_table("simulated", {key: value for key, value in table.items() if key != "kind"})
        assert isinstance(engine, Settings)
        sets = [word for key, value in table.items() for word in ("--set", f"retrieval.{key}={value}")]
        words = world.stage_words("simulated-killed", "--steps", str(STEPS), *sets)
        killed = world.folder_of("simulated-killed")
        child = until_step(3, killed, world.command(*words))
        launch = json.loads((killed.path / "launch.json").read_text())["launch"]
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        assert checkpoint_step(killed) in range(2, STEPS, 2)
        wait_for(lambda: not with_variable(launch))
        world.run(*words)
        whole = world.stage1("simulated", "--steps", str(STEPS), *sets)
        asked = [body["messages"][0]["content"] for body in served.bodies]
    one, other = draws(killed, engine), draws(whole, engine)
    both = one.keys() & other.keys()
    assert len(both) > 10
    assert {one[key] for key in both} == {"useful", "noisy"}
    assert all(one[key] == other[key] for key in both)
    index = json.loads(killed.manifest.read_text("utf-8"))["index"]
    assert index["name"].startswith("m at http://127.0.0.1:")
    answers = {row["question"]: row["gold_answers"][0] for row in read_rows(world.folder / "questions.jsonl")}
    for prompt in asked:  # no search knows the answer of another episode
        question, answer = (
            re.search(rf"^{name}: (.*)$", prompt, re.MULTILINE) for name in ("The question", "Its answer")
        )
        assert question
        assert answer
        assert answers[question[1]] == answer[1]


def test_an_sft_learns_responses_to_prompts(world: World, tmp_path: Path) -> None:
    """As `r1s simulate prepare` writes them; short ones, for the context of the toy model."""
    rows = tmp_path / "rows.jsonl"
    write_rows(
        rows, [{"prompt": f"Town {number % 8}?", "response": f"Document 1: {number % 8} | x"} for number in range(480)]
    )
    world.run("sft", str(world.settings), "--name", "simulator", "--set", f"data.traces={rows}")
    run = world.folder_of("simulator")
    trained = list(read_rows(run.questions))
    assert all(
        re.fullmatch(r"Town \d\?\n\n", asked) and re.fullmatch(r"Document 1: \d \| x<\|endoftext\|>", said)
        for (_, asked), (_, said) in (row["segments"] for row in trained)
    )
    losses = [row["loss_mean"] for row in read_rows(run.metrics)]
    assert sum(losses[-5:]) < sum(losses[:5]) / 3
    assert (run.model / "model.safetensors").exists()
