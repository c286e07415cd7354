"""A settings file to start from: every key with its meaning, generated from the models in `settings`."""

import json
import textwrap
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from r1searcher.common.files import writing
from r1searcher.config.settings import DERIVED, Settings
from r1searcher.errors import FileError, InputError

HEAD = """\
# Settings of r1s. Every key is listed with its default. Commented out are keys without a default, and those that
# are derived from the model and the GPUs, if there are any: `r1s plan` shows and explains them.
# A table named [stage1], [stage2] or [sft] has the settings that differ in that stage, for example:
#     [stage2.rl]
#     learning_rate = 1e-6
#
#     r1s stage1 {name}
#     r1s stage2 {name} --from runs/stage1
"""


def template(name: str = "settings.toml") -> str:
    """A TOML file with the defaults of all settings, as text."""
    scalars: list[str] = []
    tables: list[str] = []
    for key, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            tables.append(f"\n[{key}]\n" + "\n".join(_lines(field.annotation)))
        else:
            scalars += _entry(key, field)
    return "\n".join([HEAD.format(name=name), *scalars, *tables]) + "\n"


def write_template(file: Path) -> None:
    """Write `template` to a new file. Raises `InputError` for an existing file: nothing is overwritten."""
    try:
        with writing(file), file.open("x", encoding="utf-8", errors="backslashreplace") as out:
            out.write(template(file.name))
    except FileError as error:
        if isinstance(error.__cause__, (FileExistsError, IsADirectoryError)):
            raise InputError(f"{file} already exists: choose another name, or edit it") from None
        if isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError)):
            raise InputError(f"{file} cannot be written: the folder {file.parent} does not exist") from None
        raise
    except ValueError:
        raise InputError(f"{str(file)!r} is not a valid file name: choose another") from None


def _lines(model: type[BaseModel]) -> list[str]:
    lines: list[str] = []
    if model.__doc__ and not model.__doc__.startswith("!!!"):
        lines += _comment(model.__doc__)
    for key, field in model.model_fields.items():
        lines += _entry(key, field)
    return lines


def _entry(key: str, field: Any) -> list[str]:
    default = field.get_default(call_default_factory=True)
    line = f"# {key} =" if default in (None, "", ()) else f"{key} = {json.dumps(default)}"
    if DERIVED in field.metadata:
        line = f"# {line}"
    return [*_comment(field.description or ""), line]


def _comment(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), 108, initial_indent="# ", subsequent_indent="# ")
