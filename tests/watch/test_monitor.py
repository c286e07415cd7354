"""Rules over metrics, and what a step's monitor does with what they say. Does not need training packages."""

import json
from pathlib import Path
from typing import Any

import pytest

from r1searcher.common.files import read_rows
from r1searcher.config.settings import Settings
from r1searcher.errors import R1Error, RunStopped
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import StopDecision, read_ending, read_heartbeats
from r1searcher.watch.monitor import StepMonitor
from r1searcher.watch.rules import Alarm, Notice, Rows, Stop, rollout_drift, rollout_staleness


def monitor(folder: Path, **settings: Any) -> StepMonitor:
    return StepMonitor(RunFolder(folder), Settings.model_validate(settings))


def drift(kl: float, precision: str = "bf16", **engine: Any) -> Alarm | Notice | None:
    settings = Settings.model_validate({"engine": {"precision": precision, **engine}})
    return rollout_drift([{"step": 1, "vllm_kl": kl}], settings)


def test_rounding_noise_of_each_precision_passes_and_ten_times_more_does_not() -> None:
    # Largest values seen in synchronous runs: fp32 7e-5, bf16 and mixed 3e-3.
    for precision, noise in (("fp32", 7e-5), ("bf16", 3e-3), ("mixed", 3e-3)):
        assert drift(noise, precision) is None
        assert drift(-noise, precision) is None
        assert drift(-10 * noise - 1e-3, precision)


@pytest.mark.parametrize("metrics", [{}, {"vllm_kl": float("nan")}, {"vllm_kl": float("inf")}])
def test_a_metric_that_says_nothing_is_an_alarm(metrics: dict[str, float]) -> None:
    assert rollout_drift([{"step": 1, **metrics}], Settings())


def test_a_run_is_stopped_with_the_reason_where_rollouts_come_from_other_weights(tmp_path: Path) -> None:
    with pytest.raises(RunStopped, match="no longer come from the trained weights"):
        monitor(tmp_path, engine={"precision": "fp32"}).step(3, {"vllm_kl": 0.03})
    assert "step 3" in RunFolder(tmp_path).stop_note.read_text()
    assert [row["step"] for row in read_rows(RunFolder(tmp_path).metrics)] == [3]
    assert read_ending(RunFolder(tmp_path)) is None


def test_the_limit_in_the_settings_counts(tmp_path: Path) -> None:
    assert monitor(tmp_path, engine={"vllm_kl_limit": 0.1}).step(1, {"vllm_kl": 0.03}) is None


def test_on_gpus_only_a_limit_that_was_set_stops_a_run() -> None:
    """No run has measured rounding there: vLLM and the trainer use different kernels."""
    assert drift(3e-3, device="gpu") is None
    assert isinstance(drift(0.05, device="gpu"), Notice)
    assert isinstance(drift(0.05, device="gpu", vllm_kl_limit=0.01), Alarm)
    assert isinstance(drift(float("nan"), device="gpu"), Alarm)
    assert isinstance(drift(0.05, device="cpu"), Alarm)


def test_asynchronous_rollouts_are_judged_by_the_tokens_of_the_last_sync() -> None:
    """Those of a step are of older weights: with drift, which is no fault."""
    engine = {"precision": "fp32", "async_steps": 2}
    settings = Settings.model_validate({"engine": engine})
    row = {"step": 4, "vllm_kl": 0.5, "staleness": 1.0, "staleness_max": 2.0}
    assert rollout_drift([{**row, "sync_kl": 1e-5}], settings) is None
    alarm = rollout_drift([{**row, "sync_kl": -0.5}], settings)
    assert isinstance(alarm, Alarm)
    assert alarm.message.startswith("sync_kl is -0.5, over the limit of 0.001")
    assert isinstance(rollout_drift([row], settings), Alarm), "a drift that nobody measured"


@pytest.mark.parametrize(
    ("allowed", "largest", "stops"), [(0, 0, False), (0, 1, True), (2, 2, False), (2, 3, True), (2, None, True)]
)
def test_rollouts_of_older_weights_than_allowed_are_an_alarm(allowed: int, largest: int | None, stops: bool) -> None:
    settings = Settings.model_validate({"engine": {"async_steps": allowed}})
    row = {"step": 9} if largest is None else {"step": 9, "staleness_max": float(largest)}
    assert isinstance(rollout_staleness([row], settings), Alarm) is stops
    assert rollout_staleness([{"step": 9}], Settings()) is None, "synchronous rollouts report it only if it is not 0"


def test_a_notice_is_shown_once_and_the_run_goes_on(tmp_path: Path) -> None:
    here = monitor(tmp_path, engine={"device": "gpu"})
    for step, kl in enumerate((0.001, 0.05, 0.06), start=1):
        assert here.step(step, {"vllm_kl": kl}) is None
    [shown] = read_heartbeats(RunFolder(tmp_path))
    assert shown.message.startswith("step 2: vllm_kl is 0.05, over the limit of 0.01")


def test_a_stage_ends_when_all_its_thresholds_were_reached_for_patience_steps(tmp_path: Path) -> None:
    here = monitor(tmp_path, stop={"f1": 0.8, "searches": 1.5, "patience": 2})
    rows = [(0.85, 1.6), (0.7, 1.6), (0.8, 1.5), (0.9, 2.25)]
    decisions = [
        here.step(step, {"vllm_kl": 0.0, "f1": f1, "searches": searches})
        for step, (f1, searches) in enumerate(rows, start=1)
    ]
    expected = StopDecision(reason="thresholds reached", step=4, detail="f1 0.90, searches 2.25")
    assert decisions == [None, None, None, expected]
    assert read_ending(RunFolder(tmp_path)) == expected


def test_a_stage_that_is_to_end_by_a_measure_that_no_step_reports_says_so(tmp_path: Path) -> None:
    with pytest.raises(R1Error, match="'retrieval'"):
        monitor(tmp_path, stop={"retrieval": 0.9}).step(1, {"vllm_kl": 0.0})


def test_a_threshold_is_not_reached_by_what_is_not_a_number(tmp_path: Path) -> None:
    here = monitor(tmp_path, stop={"retrieval": 0.9, "patience": 2})
    for step, rate in enumerate((0.95, float("nan"), 0.95), start=1):
        assert here.step(step, {"vllm_kl": 0.0, "retrieval": rate}) is None
    assert here.step(4, {"vllm_kl": 0.0, "retrieval": 0.95}) is not None


def test_a_stop_request_ends_the_run_after_the_step(tmp_path: Path) -> None:
    here = monitor(tmp_path)
    assert here.step(1, {"vllm_kl": 0.0}) is None
    here.run.stop_request.touch()
    assert here.step(2, {"vllm_kl": 0.0}) == StopDecision(reason="asked", step=2)


def test_rules_see_all_steps_until_now_and_alarms_come_before_decisions(tmp_path: Path) -> None:
    seen: list[list[float]] = []

    def stops(rows: Rows, _settings: Settings) -> Stop | None:
        seen.append([row["step"] for row in rows])
        return Stop("enough", f"{len(rows)} steps") if len(rows) == 3 else None

    def alarms(rows: Rows, _settings: Settings) -> Alarm | None:
        return Alarm("too long") if len(rows) == 3 and rows[-1]["loss"] > 1 else None

    def run(folder: Path, last_loss: float) -> StopDecision | None:
        here = StepMonitor(RunFolder(folder), Settings(), {"stops": stops, "alarms": alarms})
        return [here.step(step, {"loss": loss}) for step, loss in enumerate((0.0, 0.0, last_loss), start=1)][-1]

    assert run(tmp_path / "a", 0.0) == StopDecision(reason="enough", step=3, detail="3 steps")
    assert seen == [[1], [1, 2], [1, 2, 3]]
    with pytest.raises(RunStopped, match="step 3: too long"):
        run(tmp_path / "b", 2.0)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (lambda rows, settings: rows[-1]["nothing"], r"the watch rule 'mine' failed: KeyError: 'nothing'"),
        (
            lambda rows, settings: True,
            r"the watch rule 'mine' returned True; a rule returns an Alarm, a Notice, a Stop or None",
        ),
    ],
)
def test_a_rule_that_does_not_work_is_one_sentence_with_its_name(tmp_path: Path, rule: Any, said: str) -> None:
    with pytest.raises(R1Error, match=said):
        StepMonitor(RunFolder(tmp_path), Settings(), {"mine": rule}).step(1, {})


def test_a_metrics_row_is_json_whatever_the_numbers_are(tmp_path: Path) -> None:
    monitor(tmp_path).step(1, {"vllm_kl": 0.0, "grad": float("nan"), "sample": ["text", 1.0]})
    [line] = RunFolder(tmp_path).metrics.read_text().splitlines()
    row = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert row["grad"] is None
    assert "sample" not in row
