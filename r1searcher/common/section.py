"""Tables of settings: their valid contents, and each error in one of them as a sentence.

Each package declares its own tables; `config.settings` combines them.
"""

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from r1searcher.common.records import as_demand


class Section(BaseModel):
    """A table of settings: no unknown key, no value of another type, no NaN, no infinity."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, strict=True, allow_inf_nan=False
    )

    unchecked: ClassVar[frozenset[str]] = frozenset()
    """Keys whose text may contain anything."""

    @field_validator("*", mode="after")
    @classmethod
    def plain_text(cls, value: Any, info: ValidationInfo) -> Any:
        """Settings become file names, command lines and messages, where control characters are harmful."""
        if isinstance(value, str) and info.field_name not in cls.unchecked:
            if not value.isprintable():
                raise PydanticCustomError("text", "must not contain control or invisible characters")
            if len(value.encode()) > 4096:
                raise PydanticCustomError("text", "must not be longer than 4096 bytes")
        return value


_SECRET = re.compile(r"[._](key|token|secret|password)$")
"""Names of unknown settings whose value is not shown."""


def explain(
    error: ValidationError, source: str, model: type[BaseModel], prefix: str = "", more: Iterable[str] = ()
) -> str:
    """Every wrong setting with its value and the valid values.

    Keys of `model` are shown after `prefix`; `more` are further keys that are known.
    """
    lines = []
    known = [*keys_of(model, prefix), *more]
    for problem in error.errors(include_url=False):
        key = prefix + ".".join(str(part) for part in problem["loc"])
        shown = f"{key} = {short(problem['input'])}"
        unknown = problem["type"] in ("extra_forbidden", "unexpected_keyword_argument")
        if unknown and _SECRET.search(key):
            lines.append(f"{key}: there is no such setting; keys and passwords come from environment variables")
        elif unknown:
            without_index = re.sub(r"\.\d+", "", key)
            near = difflib.get_close_matches(without_index, known, n=1, cutoff=0.6)
            lines.append(f"{shown}: {f'did you mean {near[0]}?' if near else 'there is no such setting'}")
        elif problem["type"] == "value_error":
            lines.append(f"{key + '.' if key else ''}{problem['ctx']['error']}")
        else:
            lines.append(f"{shown}: {as_demand(problem['msg'])}")
    return f"{len(lines)} wrong setting{'s' * (len(lines) > 1)} in {source}:\n" + "\n".join(f"  {x}" for x in lines)


def short(value: Any) -> str:
    """A value for display in an error."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deeply; an integer too long to be written
        return f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}…"


def flat(table: Mapping[str, Any], separator: str = ".", prefix: str = "") -> dict[str, Any]:
    """Tables of tables as one table: `{"a": {"b": 1}}` -> `{"a.b": 1}`."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = prefix + key
        found |= flat(value, separator, name + separator) if isinstance(value, Mapping) else {name: value}
    return found


def keys_of(model: type[BaseModel], prefix: str) -> Iterable[str]:
    """The dotted keys of a model, its tables and tables in lists."""
    for name, field in model.model_fields.items():
        yield prefix + name
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from keys_of(kind, f"{prefix}{name}.")
            elif isinstance(kind, type) and dataclasses.is_dataclass(kind):
                yield from (f"{prefix}{name}.{field.name}" for field in dataclasses.fields(kind))
