"""What the executor hands to OpenRLHF, where it files it, and how the generator learns that the stage is over."""

from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import tomli_w

from r1searcher.common.files import write_json
from r1searcher.config.settings import Settings
from r1searcher.engine import environment
from r1searcher.engine.openrlhf.patches import recording
from r1searcher.engine.openrlhf.patches.ahead import UntilTheEnd
from r1searcher.episodes.trajectory import Author, Segment, StopReason, Trajectory
from r1searcher.errors import R1Error
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import EpisodeLabel

pytestmark = pytest.mark.training
pytest.importorskip("openrlhf")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    run = RunFolder(tmp_path)
    run.config.write_text(tomli_w.dumps(Settings().model_dump(mode="json", exclude_none=True)))
    write_json(run.manifest, {"stage": "stage1", "settings_sha256": "x"})
    monkeypatch.setenv(environment.RUN, str(tmp_path))
    return run


def label(**changes: Any) -> EpisodeLabel:
    given = {"id": "q", "question": "?", "gold_answers": ["x"], "step": 3, "epoch": 1, **changes}
    return EpisodeLabel.model_validate(given)


def test_each_actor_has_its_own_file_in_the_folder_of_the_labels_step(run: RunFolder) -> None:
    from r1searcher.engine.openrlhf.executor import AgentExecutor

    first, second = AgentExecutor(), AgentExecutor()
    files = {first._file_of(label()), second._file_of(label())}
    assert len(files) == 2
    assert {file.parent for file in files} == {run.trajectories(3)}
    assert first._file_of(label()) == first._file_of(label(id="another"))
    assert first._file_of(label(split="eval")).parent == run.eval_trajectories


def test_the_score_that_filtering_reads_is_the_reward() -> None:
    from r1searcher.engine.openrlhf.executor import as_openrlhf

    segments = (
        Segment(Author.PROMPT, "?", (1, 2)),
        Segment(Author.MODEL, "x", (3,), (-0.5,)),
        Segment(Author.ENVIRONMENT, "d", (4, 5)),
        Segment(Author.MODEL, "y", (6,), (-0.25,)),
    )
    trajectory = Trajectory("?", ("x",), segments, (), StopReason.TURN_TRUNCATED, "r1-searcher")
    handed = as_openrlhf("?", "label", trajectory, -1.5, {"f1": 0.75})
    assert (handed["reward"], handed["scores"]) == (-1.5, -1.5)
    assert handed["observation_tokens"] == [1, 2, 3, 4, 5, 6]
    assert handed["action_ranges"] == [(2, 3), (5, 6)]
    assert handed["rollout_log_probs"] == [0.0, 0.0, -0.5, 0.0, 0.0, -0.25]
    assert handed["truncated"]


def test_the_generator_stops_when_a_decision_is_in_the_run_folder(run: RunFolder) -> None:
    from tests.engine.test_cpu import pristine

    module = pristine("openrlhf.trainer.ppo_utils.samples_generator")
    module.SamplesGenerator.generate_samples = lambda self, **options: options  # the stock one needs vLLM engines
    recording._end_the_loop(module)
    generator = object.__new__(module.SamplesGenerator)
    assert generator.generate_samples(n=1) == {"n": 1}
    write_json(run.ending, {"reason": "asked", "step": 1})
    assert generator.generate_samples(n=1) == ([], None, 0, True)


def test_what_was_sampled_ahead_is_not_trained_after_the_decision(run: RunFolder) -> None:
    """And the generator gets a slot for each step that is dropped: without it, it would wait and never say "done"."""
    rollouts: Queue[Any] = Queue()
    slots: Queue[int] = Queue()
    for payload in ("step 1", "step 2", "step 3", "done"):
        rollouts.put(payload)
    trainer = UntilTheEnd(rollouts, slots, run.ending)
    assert trainer.get(block=True) == "step 1"
    assert slots.empty()  # OpenRLHF's loop returns the slot of what it trains
    write_json(run.ending, {"reason": "asked", "step": 1})
    assert trainer.get(block=True) == "done"
    assert slots.qsize() == 2


def test_a_process_without_a_run_says_how_it_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(environment.RUN, raising=False)
    with pytest.raises(R1Error, match="R1S_RUN is not set"):
        environment.run_of_this_process()
