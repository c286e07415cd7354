"""Settings from the command line, as values: `--set section.key=value`."""

import tomllib
from collections.abc import Iterable
from typing import Any

from r1searcher.errors import InputError


def from_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Dotted keys to values. A text that is not a TOML value is a string: in `--set name=first` quotes are optional.

    Raises `InputError` for a text without a key or without an equals sign.

    >>> from_assignments(["rl.steps=4", "name=first", "stop.format = 0.9"])
    {'rl.steps': 4, 'name': 'first', 'stop.format': 0.9}
    """
    overrides: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not all(part.strip() for part in key.split(".")):
            raise InputError(f"--set {assignment}: write it as section.key=value, for example --set rl.steps=4")
        overrides[key.strip()] = toml_value(text.strip())
    return overrides


def toml_value(text: str) -> Any:
    """One TOML value, or the text itself if it is not one."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # not TOML, an integer too long to read, brackets nested too deeply
        return text
    return parsed["value"] if len(parsed) == 1 else text
