"""Damage to the files of an index that is served, and whether every answer is still right or an error."""

import http.client
import json
import os
import random
import time
import urllib.error
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1searcher.corpora.passage import Passage
from r1searcher.retrieval.indexing.bm25 import build
from tests.retrieval.serving import post

KINDS = ("flip", "zero", "cut")
QUERIES = ("word17 word3", "capital norway", "town 42", "nothing matches", "word5")
LONGEST_ANSWER = 10.0
_ZEROS = 64


@dataclass(frozen=True, slots=True)
class Damage:
    """One damage: a flipped bit, 64 bytes set to zero, or the rest of the file removed."""

    file: Path
    kind: str
    position: int
    content: bytes

    def do(self) -> None:
        """In place, as a disk or another program does it: the server has the file mapped into its memory."""
        if self.kind == "cut":
            os.truncate(self.file, self.position)
            return
        size = 1 if self.kind == "flip" else _ZEROS
        piece = self.content[self.position : self.position + size]
        changed = bytes([piece[0] ^ 1 << self.position % 8]) if self.kind == "flip" else bytes(len(piece))
        with self.file.open("r+b") as handle:
            handle.seek(self.position)
            handle.write(changed)

    def undo(self) -> None:
        with self.file.open("r+b") as handle:
            handle.write(self.content)


def make_index(path: Path) -> None:
    chance = random.Random(0)
    build(
        (
            Passage(str(n), f"town {n}", " ".join(f"word{chance.randrange(60)}" for _ in range(60)) + _fact(n))
            for n in range(2000)
        ),
        path,
    )


def _fact(n: int) -> str:
    return " capital norway" if n % 50 == 0 else ""


def damages(index: Path, positions: int, seed: int = 0) -> Iterator[Damage]:
    """`positions` in each file of the index, each position with the next kind."""
    chance = random.Random(seed)
    for file in sorted(path for path in index.rglob("*") if path.is_file() and path.suffix != ".lock"):
        content = file.read_bytes()
        ranks = sorted(chance.sample(range(len(content)), min(positions, len(content))))
        for number, place in enumerate(ranks):
            yield Damage(file, KINDS[number % len(KINDS)], place, content)


def ask(address: str, query: str) -> Any:
    """The answer, or a short reason why there is none. Raises `TimeoutError` after `LONGEST_ANSWER` seconds."""
    try:
        return post(f"{address}/retrieve", {"queries": [query], "return_scores": True}, LONGEST_ANSWER)["result"]
    except urllib.error.HTTPError as error:
        detail = json.load(error)["detail"]
        return "503" if error.code == 503 and "damaged" in detail else f"WRONG: {error.code} {detail}"
    except (urllib.error.URLError, ConnectionError, http.client.HTTPException) as error:
        if isinstance(getattr(error, "reason", None), TimeoutError):
            raise TimeoutError from error
        return "hung up"


def outcome(answer: Any, intact: Any) -> str:
    return answer if isinstance(answer, str) else "right" if answer == intact else "WRONG"


def attack(address: str, intact: dict[str, Any], cases: Sequence[Damage], tally: Counter[tuple[str, str, str]]) -> None:
    """Damages, asks, restores, and waits until the server is back; counts the outcomes by file, kind and answer."""
    for case in cases:
        case.do()
        for query in QUERIES:
            answer = ask(address, query)
            tally[case.file.suffix or case.file.name, case.kind, outcome(answer, intact[query])] += 1
        case.undo()
        deadline = time.monotonic() + 60
        while any(ask(address, query) != intact[query] for query in QUERIES[:1] * 4):  # each process, as a rule
            assert time.monotonic() < deadline, f"the server does not come back after {case.file.name} was restored"
            time.sleep(0.02)
