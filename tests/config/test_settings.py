"""Settings: one file, every mistake at once. No GPU, no server."""

from pathlib import Path

import pytest

from r1searcher.config.settings import STAGES, load, presets
from r1searcher.errors import InputError


def write(folder: Path, text: str) -> Path:
    file = folder / "settings.toml"
    file.write_text(text, "utf-8")
    return file


def test_every_preset_loads_for_every_stage() -> None:
    assert "demo" in presets()
    for preset in presets():
        for stage in STAGES:
            load(stage, preset=preset)


def test_all_mistakes_are_reported_at_once_with_key_value_and_what_is_right(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """
        sead = 3
        [rl]
        learning_rat = 1
        samples_per_question = -2
        advantage = "ppo"
        [episode]
        max_searches = "many"
        """,
    )
    with pytest.raises(InputError) as error:
        load("stage1", file)
    message = str(error.value)
    assert error.value.exit_code == 2
    assert str(file) in message
    assert "sead = 3: did you mean seed?" in message
    assert "did you mean rl.learning_rate?" in message
    assert "rl.samples_per_question = -2" in message
    assert "'reinforce_baseline'" in message
    assert "episode.max_searches = 'many'" in message


def test_settings_that_contradict_each_other_name_both(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rl\.batch = 31: must divide .* = 1024"):
        load("stage1", overrides={"rl.batch": 31})
    with pytest.raises(InputError, match="samples_per_question = 1"):
        load("stage1", overrides={"rl.samples_per_question": 1, "rl.batch": 64})
    with pytest.raises(InputError, match=r"episode\.max_context = 100"):
        load("stage1", overrides={"episode.max_context": 100, "episode.max_new_tokens": 100})


def test_a_stages_own_table_and_flags_override_the_shared_settings(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """
        seed = 1
        [rl]
        learning_rate = 1e-6
        [stage2]
        seed = 2
        [stage2.rl]
        learning_rate = 3e-6
        [warmup]
        steps = 5
        [warmup.engine]
        freeze_lower_layers = 4
        """,
    )
    assert load("stage1", file).rl.learning_rate == 1e-6
    stage2 = load("stage2", file, overrides={"rl.kl": 0.01, "name": "unquoted"})
    assert (stage2.seed, stage2.rl.learning_rate, stage2.rl.kl, stage2.name) == (2, 3e-6, 0.01, "unquoted")
    warmup = load("warmup", file)
    assert (warmup.warmup.steps, warmup.engine.freeze_lower_layers) == (5, 4)
    assert load("stage1", file).engine.freeze_lower_layers == 0


def test_a_file_overrides_a_preset(tmp_path: Path) -> None:
    file = write(tmp_path, "[episode]\ntop_k = 1\n")
    settings = load("stage1", file, preset="demo")
    assert settings.episode.top_k == 1
    assert settings.episode.max_context == load("stage1", preset="demo").episode.max_context


@pytest.mark.parametrize(
    ("text", "expected"),
    [("[rl\n", "not valid TOML"), (b"\xff\xfe", "is not UTF-8")],
)
def test_a_file_that_is_no_toml_is_one_sentence(tmp_path: Path, text: str | bytes, expected: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=expected):
        load("stage1", file)


def test_missing_file_preset_and_section_are_one_sentence_each(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no settings file"):
        load("stage1", tmp_path / "missing.toml")
    with pytest.raises(InputError, match=r"there is no preset 'demmo'; there are: .*demo"):
        load("stage1", preset="demmo")
    with pytest.raises(InputError, match="seed is a value, not a section"):
        load("stage1", overrides={"seed": 3, "seed.x": 4})
