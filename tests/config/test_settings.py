"""Settings: one file, every mistake at once. No GPU, no server."""

import re
from pathlib import Path

import pytest
import tomli_w

from r1searcher.config.overrides import from_assignments
from r1searcher.config.settings import STAGES, load, presets, read_resolved
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
        lr_schedule = "linear"
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
    assert "'cosine'" in message
    assert "episode.max_searches = 'many'" in message


def test_settings_that_contradict_each_other_name_both(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rl.batch_size = 31: must divide .* = 1024"):
        load("stage1", overrides={"rl.batch_size": 31})
    with pytest.raises(InputError, match=r"episode\.max_context = 100"):
        load("stage1", overrides={"episode.max_context": 100, "episode.max_new_tokens": 100})


def test_a_gae_lambda_below_one_is_refused_with_the_reason() -> None:
    with pytest.raises(InputError, match=r"rl\.gae_lambda = 0\.95: must be 1; .* every search counts as a loss"):
        load("stage1", overrides={"rl.algorithm": "ppo", "rl.gae_lambda": 0.95})


def test_a_clip_range_is_two_positive_numbers() -> None:
    assert load("stage1", overrides={"rl.clip_range": [0.2, 0.28]}).rl.clip_range == (0.2, 0.28)
    for wrong in ([0.2], [0.2, -0.1], 0.2, [0.1, 0.2, 0.3]):
        with pytest.raises(InputError, match=r"rl\.clip_range"):
            load("stage1", overrides={"rl.clip_range": wrong})


def test_a_stage_ends_by_any_measure_of_its_steps(tmp_path: Path) -> None:
    file = write(tmp_path, "[stop]\npatience = 2\n[stage1.stop]\nretrieval = 1\n[stage2.stop]\nf1 = 0.9\nreward = -1.5")
    assert load("stage1", file).stop.thresholds == {"retrieval": 1.0}
    stop = load("stage2", file, overrides={"stop.searches": 2.5}).stop
    assert (stop.thresholds, stop.patience) == ({"f1": 0.9, "reward": -1.5, "searches": 2.5}, 2)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("retrieval_rate", 0.9, "retrieval_rate = 0.9: did you mean stop.retrieval?"),
        ("retrieval", 1.5, "retrieval = 1.5: must be between 0 and 1"),
        ("retrieval", True, "retrieval = True: must be a valid number"),
        ("retrieval", float("nan"), "retrieval = nan: must be a finite number"),
        ("searches", -1, "searches = -1.0: must be at least 0"),
        ("official_f1", 0.5, "official_f1 = 0.5: steps of training do not report this measure"),
        ("f1_one_hop", 0.5, "f1_one_hop = 0.5: steps of training do not report this measure"),
        ("happiness", 1, "happiness = 1.0: there is no such setting"),
        ("patiense", 1, "patiense = 1.0: did you mean stop.patience?"),
    ],
)
def test_a_threshold_that_no_step_can_be_compared_with_is_refused(key: str, value: float, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"stop.{said}")):
        load("stage1", overrides={f"stop.{key}": value})


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
        [sft]
        steps = 5
        [sft.engine]
        freeze_lower_layers = 4
        """,
    )
    assert load("stage1", file).rl.learning_rate == 1e-6
    stage2 = load("stage2", file, overrides={"rl.kl_coef": 0.01, "name": "unquoted"})
    assert (stage2.seed, stage2.rl.learning_rate, stage2.rl.kl_coef, stage2.name) == (2, 3e-6, 0.01, "unquoted")
    sft = load("sft", file)
    assert (sft.sft.steps, sft.engine.freeze_lower_layers) == (5, 4)
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
    with pytest.raises(InputError, match=r"there is no preset 'demmo'; choose one of .*demo"):
        load("stage1", preset="demmo")
    with pytest.raises(InputError, match="seed is a value, not a section"):
        load("stage1", overrides={"seed": 3, "seed.x": 4})


REFUSED = [
    ("rl.learning_rate", float("inf")),
    ("rl.learning_rate", float("nan")),
    ("rl.learning_rate", 2),
    ("rl.kl_coef", float("nan")),
    ("rl.steps", 10**40),
    ("rl.steps", True),
    ("rl.steps", 4.0),
    ("rl.questions_per_step", 10**10),
    ("seed", -1),
    ("seed", 2**32),
    ("seed", 2**63),
    ("name", "../../x"),
    ("name", "a/b"),
    ("name", ".."),
    ("name", "a\0b"),
    ("name", "a\x1b[2J"),
    ("name", "é" * 150),
    ("output", ""),
    ("episode.temperature", 0),
    ("episode.temperature", float("inf")),
    ("retrieval.url", "a\0"),
    ("model.path", "a\x9b"),
    ("data.shuffle", 1),
    ("engine.vllm_kl_limit", float("inf")),
    ("lora.rank", -1),
    ("lora.dropout", 1.0),
    ("lora.target_modules", ["q_proj", "lm_head"]),
    ("lora.target_modules", ["--train.seed"]),
]


@pytest.mark.parametrize(("key", "value"), REFUSED)
def test_what_cannot_train_is_refused_by_its_key(key: str, value: object) -> None:
    with pytest.raises(InputError, match="1 wrong setting in command line") as error:
        load("stage1", overrides={key: value})
    line = str(error.value).split("\n")[1]
    assert line.startswith(f"  {key} = ")
    assert len(line) < 200


def test_a_wrong_key_of_a_reward_part_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"reward\.parts\.0\.wieght = 2: did you mean reward\.parts\.weight\?"):
        load("stage1", overrides={"reward.parts": [{"name": "f1", "wieght": 2}]})


@pytest.mark.parametrize("part", ["weight", "if_zero"])
@pytest.mark.parametrize("value", [float("inf"), float("nan"), -float("inf"), 1e300])
def test_reward_parts_are_finite(part: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"reward\.parts\.0\.{part}"):
        load("stage1", overrides={"reward.parts": [{"name": "f1", part: value}]})


def test_all_of_these_are_reported_at_once() -> None:
    one_a_key = dict(REFUSED)
    with pytest.raises(InputError, match=f"{len(one_a_key)} wrong settings") as error:
        load("stage1", overrides=one_a_key)
    assert all(f"{key} = " in str(error.value) for key in one_a_key)


@pytest.mark.parametrize("seed", [0, 7, 2**31 - 1])
def test_seeds_that_are_accepted_are_taken_by_numpy_and_random(seed: int) -> None:
    import random

    import numpy as np

    assert load("stage1", overrides={"seed": seed}).seed == seed
    np.random.seed(seed + 8)  # eight vLLM engines: each adds its number
    random.seed(seed)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4", 4),
        ("1e-6", 1e-6),
        ("true", True),
        ("first", "first"),
        ('"4"', "4"),
        ("[1, 2]", [1, 2]),
        ('{name = "f1"}', {"name": "f1"}),
        ("i😀/idx", "i😀/idx"),
        ('"i😀/idx"', "i😀/idx"),
        ("1\nother = 2", "1\nother = 2"),
        ("[" * 5000, "[" * 5000),
        ("9" * 5000, "9" * 5000),
        ("", ""),
    ],
)
def test_an_assignment_is_a_toml_value_or_a_string(text: str, value: object) -> None:
    assert from_assignments([f"key={text}"]) == {"key": value}


@pytest.mark.parametrize("text", ["x" * 3, "=1", ".=1", "a..b=1", ""])
def test_an_assignment_without_a_key_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"section\.key=value"):
        from_assignments([text])


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"a = " + b"[" * 100_000, "nested too deeply"), (b"a = " + b"1" * 5000, "integer is too long")],
)
def test_a_settings_file_beyond_the_parser_is_one_sentence(content: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_bytes(content)
    with pytest.raises(InputError, match=said):
        load("stage1", file)


def test_a_table_of_an_engine_is_checked_by_the_engine(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """
        [retrieval]
        kind = "http"
        url = "http://127.0.0.1:9/retrieve"
        timeout_s = -1.0
        conections = 3
        [rl]
        kl = 1
        """,
    )
    with pytest.raises(InputError, match="3 wrong settings") as error:
        load("stage1", file)
    assert "retrieval.timeout_s = -1.0: must be greater than 0" in str(error.value)
    assert "retrieval.conections = 3: did you mean retrieval.connections?" in str(error.value)


def test_keys_of_an_engine_need_its_kind() -> None:
    with pytest.raises(InputError, match=r"retrieval\.ur = 'x': did you mean retrieval.url\?"):
        load("stage1", overrides={"retrieval.ur": "x"})
    with pytest.raises(
        InputError, match=r"retrieval\.kind = 'htp': there is no retriever 'htp' \(did you mean 'http'\?\)"
    ):
        load("stage1", overrides={"retrieval.kind": "htp"})


def test_a_url_replaces_another_engine_as_a_whole(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """
        [retrieval]
        kind = "http"
        url = "http://127.0.0.1:9/retrieve"
        timeout_s = 2.0
        retry_timeout_s = 5.0
        """,
    )
    before = load("stage1", file).retrieval
    assert (before.engine.kind, before.engine.model_dump()["timeout_s"]) == ("http", 2.0)
    after = load("stage1", file, overrides={"retrieval.url": "index"}).retrieval
    assert (after.engine.kind, after.engine.url, after.retry_timeout_s) == ("bm25", "index", 5.0)
    both = load("stage1", file, overrides={"retrieval.kind": "es", "retrieval.url": "es://h/x"}).retrieval
    assert (both.engine.kind, both.engine.url) == ("es", "es://h/x")


def test_a_resolved_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    table = {"retrieval.kind": "http", "retrieval.url": "http://h/queries", "retrieval.connections": 3}
    settings = load("stage1", overrides=table)
    file = write(tmp_path, tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True)))
    assert read_resolved(file) == settings
    assert read_resolved(file).retrieval.engine == settings.retrieval.engine
