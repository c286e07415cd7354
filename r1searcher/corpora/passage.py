"""The unit of a corpus."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Passage:
    """One retrievable piece of text.

    `id` is unique in its corpus. `title` may be empty.
    """

    id: str
    title: str
    text: str
