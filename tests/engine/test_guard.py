"""Needs no training packages."""

import json

import pytest

from r1searcher.common.files import read_rows
from r1searcher.config.settings import Settings
from r1searcher.engine.guard import limit_for, rollout_drift
from r1searcher.engine.watch import StepMonitor, read_ending, stop_request
from r1searcher.errors import R1Error, RunStopped
from r1searcher.runs.folder import RunFolder


def watch(tmp_path, **settings) -> StepMonitor:
    return StepMonitor(RunFolder(tmp_path), Settings.model_validate(settings))


def test_rounding_noise_of_each_precision_passes_and_ten_times_more_does_not():
    # Largest values seen in synchronous runs: fp32 7e-5, bf16 and mixed 3e-3.
    for precision, noise in (("fp32", 7e-5), ("bf16", 3e-3), ("mixed", 3e-3)):
        assert rollout_drift({"vllm_kl": noise}, limit_for(precision)) is None
        assert rollout_drift({"vllm_kl": -noise}, limit_for(precision)) is None
        assert rollout_drift({"vllm_kl": -10 * noise - 1e-3}, limit_for(precision))


@pytest.mark.parametrize("metrics", [{}, {"vllm_kl": float("nan")}, {"vllm_kl": float("inf")}])
def test_a_figure_that_tells_nothing_is_an_objection(metrics):
    assert rollout_drift(metrics, 1e-2)


def test_a_run_is_stopped_with_the_reason_where_rollouts_come_from_other_weights(tmp_path):
    with pytest.raises(RunStopped, match="no longer come from the trained weights"):
        watch(tmp_path, engine={"precision": "fp32"}).step(3, {"vllm_kl": 0.03})
    assert "step 3" in RunFolder(tmp_path).stop_note.read_text()
    assert [row["step"] for row in read_rows(RunFolder(tmp_path).metrics)] == [3]


def test_the_limit_in_the_settings_counts(tmp_path):
    assert watch(tmp_path, engine={"vllm_kl_limit": 0.1}).step(1, {"vllm_kl": 0.03}) is None


def test_a_stage_ends_when_all_its_rates_were_passed_for_so_many_steps(tmp_path):
    here = watch(tmp_path, stop={"retrieval_rate": 0.9, "format_rate": 0.8, "patience": 2})
    rows = [(0.95, 0.85), (0.95, 0.7), (0.9, 0.8), (0.92, 0.9)]
    endings = [
        here.step(step, {"vllm_kl": 0.0, "retrieval": retrieval, "format": format_})
        for step, (retrieval, format_) in enumerate(rows, start=1)
    ]
    assert [ending is not None for ending in endings] == [False, False, False, True]
    assert read_ending(RunFolder(tmp_path)) == endings[-1]
    assert endings[-1].reason == "rates passed"


def test_a_stage_that_is_to_end_by_a_rate_nobody_reports_says_so(tmp_path):
    with pytest.raises(R1Error, match="'retrieval'"):
        watch(tmp_path, stop={"retrieval_rate": 0.9}).step(1, {"vllm_kl": 0.0})


def test_a_stop_asked_for_ends_the_run_behind_the_step(tmp_path):
    here = watch(tmp_path)
    assert here.step(1, {"vllm_kl": 0.0}) is None
    stop_request(here.run).touch()
    assert here.step(2, {"vllm_kl": 0.0}).reason == "asked"


def test_a_metrics_row_is_json_whatever_the_numbers_are(tmp_path):
    watch(tmp_path).step(1, {"vllm_kl": 0.0, "grad": float("nan"), "sample": ["text", 1.0]})
    [line] = RunFolder(tmp_path).metrics.read_text().splitlines()
    row = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert row["grad"] is None
    assert "sample" not in row
