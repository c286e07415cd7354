"""Where the settings of a command come from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r1searcher.config.settings import Settings, Stage, load


@dataclass(frozen=True, kw_only=True)
class SettingsSource:
    """A preset, a file and overrides ("rl.steps" -> 4); each overrides the ones before it."""

    preset: str | None = None
    file: Path | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def load(self, stage: Stage, more: Mapping[str, Any] | None = None) -> Settings:
        """The settings of one stage; `more` are overrides for this stage only. Raises like `config.settings.load`."""
        return load(stage, self.file, self.preset, {**self.overrides, **(more or {})})
