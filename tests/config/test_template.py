"""The settings file to start from is the settings themselves."""

import re
from pathlib import Path

import pytest

from r1searcher.config.settings import RL, STAGES, Reward, Settings, load
from r1searcher.config.template import write_template
from r1searcher.engine.openrlhf.algorithms import ALGORITHMS
from r1searcher.errors import InputError
from r1searcher.rewards.recipes import RECIPES


def test_the_template_sets_the_defaults_and_names_every_key(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    write_template(file)
    for stage in STAGES:
        assert load(stage, file) == Settings()
    text = file.read_text("utf-8")
    for section, field in Settings.model_fields.items():
        fields = getattr(field.annotation, "model_fields", {section: field})
        for key, setting in fields.items():
            assert setting.description, f"{section}.{key} has no meaning written down"
            assert f"{key} =" in text


def test_the_template_names_every_recipe_and_every_algorithm() -> None:
    recipes = Reward.model_fields["recipe"].description or ""
    assert recipes.startswith(", ".join(RECIPES.builtin))
    algorithms = RL.model_fields["algorithm"].description or ""
    ours = " ".join(algorithms.split()).partition(": ")[2].partition(" or one")[0]
    assert set(re.findall(r"[\w+-]+", ours)) == set(ALGORITHMS.builtin)


def test_a_settings_file_is_never_written_over(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("seed = 1\n")
    with pytest.raises(InputError, match="already exists"):
        write_template(file)
    assert file.read_text() == "seed = 1\n"
