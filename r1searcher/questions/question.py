"""A question, in the same form from every source."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Question:
    """`gold_answers` has every accepted answer, at least one. `hops` is 0 if the data does not state it."""

    id: str
    text: str
    gold_answers: tuple[str, ...]
    hops: int = 0
