"""Both stages on R1-Searcher's released rows and 200 real passages, through the commands, on a tiny model.

The model knows nothing and learns nothing here: what is tested is that masks, limits, cutting, logs and resuming hold
on real text. Real parts throughout; some minutes on two cores.
"""

import json
import os
import random
import signal
import subprocess

import pytest
import tomli_w

from r1searcher.common.files import read_rows
from r1searcher.engine.openrlhf.checkpoints import checkpoint_step
from r1searcher.episodes.protocols.r1_searcher import R1_SEARCHER
from r1searcher.episodes.trajectory import Author, StopReason, Trajectory
from r1searcher.runs.records import from_row, trajectory_rows
from tests.engine.test_training import wait_for
from tests.engine.toy import World, make_model, write_rows
from tests.shared_data import DATA

pytestmark = [pytest.mark.training, pytest.mark.long]
pytest.importorskip("openrlhf")
pytest.importorskip("vllm")

TAGS = R1_SEARCHER.tags
EPISODES = 16
CONTEXT, TURN, SEARCHES = 256, 32, 2


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    rows = DATA / "questions"
    corpus = rows / "passages.jsonl"
    folder = tmp_path_factory.mktemp("real")
    questions = [json.loads(line) for line in (rows / "stage_1.jsonl").open(encoding="utf-8")]
    passages = [json.loads(line) for line in corpus.open(encoding="utf-8")]
    rng = random.Random(0)
    write_rows(
        folder / "traces.jsonl",
        [
            {
                "segments": [
                    ["prompt", f"{q['question']}\n<think>"],
                    ["model", "<|begin_of_query|>" + " ".join(q["question"].split()[:4]) + "<|end_of_query|>"],
                ]
            }
            for q in rng.choices(questions, k=256)
        ],
    )
    (folder / "prompt.txt").write_text("{question}\n")
    settings = {
        "output": str(folder / "runs"),
        "model": {
            "path": str(
                make_model(folder / "model", [p["text"] for p in passages] + [q["question"] for q in questions], 4000)
            ),
            "prompt": str(folder / "prompt.txt"),
            "chat_template": False,
        },
        "data": {"train": str(rows / "stage_1.jsonl"), "traces": str(folder / "traces.jsonl")},
        "retrieval": {"url": str(folder / "index")},
        "episode": {"max_searches": SEARCHES, "max_new_tokens": TURN, "max_context": CONTEXT, "top_k": 3},
        "rl": {
            "questions_per_step": 4,
            "samples_per_question": 4,
            "batch_size": EPISODES,
            "micro_batch_size": 8,
            "steps": 2,
        },
        "sft": {"learning_rate": 5e-3, "batch_size": 16, "micro_batch_size": 16},
        "engine": {"device": "cpu", "precision": "fp32"},
        "checkpoint": {"every": 1},
        "evaluation": {"questions": 0},
        "stage2": {"data": {"train": str(rows / "stage_2.jsonl")}},
    }
    (folder / "settings.toml").write_text(tomli_w.dumps(settings))
    made = World(folder, folder / "settings.toml")
    made.run("index-corpus", str(corpus), "--to", str(folder / "index"))
    made.run("sft", str(made.settings), "--name", "sft")
    return made


def test_two_steps_of_each_stage_on_released_rows_and_real_passages(world: World) -> None:
    stage1 = world.folder_of("stage1")
    words = ("stage1", str(world.settings), "--from", str(world.folder_of("sft").path))
    child = subprocess.Popen(world.command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: checkpoint_step(stage1) >= 1 or child.poll() is not None, 600)
    assert child.poll() is None, stage1.log.read_text()[-4000:]
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    world.run(*words)  # resumes after the first step
    world.run("stage2", str(world.settings), "--from", str(stage1.path))

    for name in ("stage1", "stage2"):
        run = world.folder_of(name)
        assert [row["step"] for row in read_rows(run.metrics)] == [1, 2]
        trajectories = [from_row(row) for step in (1, 2) for row in trajectory_rows(run.trajectories(step))]
        assert len(trajectories) == 2 * EPISODES
        assert any(trajectory.searches for trajectory in trajectories)
        for trajectory in trajectories:
            check(trajectory)


def check(trajectory: Trajectory) -> None:
    """What must hold of any episode on any text."""
    assert trajectory.gold_answers
    assert trajectory.segments[0].author is Author.PROMPT
    asked = " ".join(trajectory.question.split())  # consecutive spaces become one in the prompt
    assert asked in trajectory.segments[0].text
    assert len(trajectory.token_ids) <= CONTEXT
    assert len(trajectory.searches) <= SEARCHES
    for segment in trajectory.segments:
        if segment.author is Author.MODEL:
            assert 1 <= len(segment.token_ids) <= TURN
            assert segment.logprobs is not None
            assert len(segment.logprobs) == len(segment.token_ids)
        if segment.author is Author.ENVIRONMENT:
            inner = segment.text.strip().removeprefix(TAGS.documents).removesuffix(TAGS.end_documents)
            assert not any(tag in inner for tag in TAGS)
    shown = sum(segment.author is Author.ENVIRONMENT for segment in trajectory.segments)
    assert shown == sum(search.shown > 0 or not search.hits for search in trajectory.searches)
    if trajectory.stop is StopReason.CONTEXT_FULL and trajectory.searches and not trajectory.searches[-1].shown:
        assert trajectory.segments[-1].author is Author.MODEL
