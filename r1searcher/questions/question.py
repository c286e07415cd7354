"""A question, the same wherever it came from."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Question:
    """`gold_answers` holds every answer that counts, at least one. `hops` is 0 where the data does not say."""

    id: str
    text: str
    gold_answers: tuple[str, ...]
    hops: int = 0
