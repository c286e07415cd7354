"""The line before a part of the demo: what it does and how long it takes, from the parts before it."""

from r1searcher.config.settings import Settings, load
from r1searcher.demo.progress import expected_seconds, next_line


def settings(**rl: int) -> Settings:
    sizes = {"questions_per_step": 8, "samples_per_question": 8, "batch_size": 32, "steps": 4, **rl}
    return Settings.model_validate({"rl": sizes, "evaluation": {"questions": 50}})


def test_a_part_says_its_work_and_its_minutes_if_they_are_known() -> None:
    assert next_line("stage2", settings(), 290.0) == (
        "4 steps of 64 episodes, then 50 held-out questions twice: about 5 min"
    )
    demo = load("stage1", preset="demo")
    unknown = next_line("stage1", demo, None)
    assert unknown.startswith(f"at most {demo.rl.steps} steps of 64 episodes, then ")
    assert unknown.endswith("time left is shown after the first of them")
    assert next_line("sft", load("sft", preset="demo"), 1.0).endswith("about 1 min")


def test_a_stage_takes_the_start_and_the_steps_of_the_one_before_and_its_questions() -> None:
    laps = {"sft": 400.0, "sft held out": 50.0, "stage1": 200.0, "stage1 held out": 70.0}
    rows = [{"step": 1.0, "timing/step_total": 60.0}, {"step": 2.0, "timing/step_total": 80.0}]
    # The engine started in 200 - 140 = 60 s; 4 steps of 70 s; 60 s for the questions.
    assert expected_seconds(settings(), laps, {"stage1": rows}) == 60 + 4 * 70 + 60
    assert expected_seconds(settings(steps=2), laps, {"stage1": rows}) == 60 + 2 * 70 + 60


def test_nothing_is_said_before_a_stage_was_measured() -> None:
    laps = {"sft": 400.0, "sft held out": 50.0}
    assert expected_seconds(settings(), laps, {}) is None
    assert expected_seconds(settings(), laps, {"stage1": [{"step": 1.0, "timing/step_total": 60.0}]}) is None
    assert expected_seconds(settings(), {**laps, "stage1": 90.0}, {"stage1": [{"step": 1.0}]}) is None
