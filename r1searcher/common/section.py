"""Tables of settings: what every one of them refuses."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """A table of settings: no key that is not known, no value of another type, no NaN, no infinity."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, strict=True, allow_inf_nan=False
    )

    unchecked: ClassVar[frozenset[str]] = frozenset()
    """Settings whose text may hold anything."""

    @field_validator("*", mode="after")
    @classmethod
    def plain_text(cls, value: Any, info: ValidationInfo) -> Any:
        """Settings become file names, command lines and messages, where control characters do harm."""
        if isinstance(value, str) and info.field_name not in cls.unchecked:
            if not value.isprintable():
                raise PydanticCustomError("text", "must not hold control or invisible characters")
            if len(value.encode()) > 4096:
                raise PydanticCustomError("text", "must not be longer than 4096 bytes")
        return value
