"""What an index says of itself, in whichever engine it lives: its settings, its corpus, how many passages."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError
from r1searcher.retrieval.analyzer import Analyzer

MANIFEST, ENGINE, PROGRESS = "manifest.json", "tantivy", "progress.json"
"""What lies in the folder of an embedded index."""

FORMAT = 2
"""Raised whenever an index written before would be read wrongly."""


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """How passages are ranked (BM25, Robertson and Zaragoza 2009).

    `title_weight` None puts title and text into one field, as Lucene baselines do; a number keeps them apart and counts
    the title's score that many times.
    """

    analyzer: str = "english"
    k1: float = 1.2
    b: float = 0.75
    title_weight: float | None = None

    def __post_init__(self) -> None:
        Analyzer(self.analyzer)
        if not self.k1 >= 0:
            raise InputError(f"k1 is {self.k1}: it must be 0 or more (usual: 0.9 to 1.2).")
        if not 0 <= self.b <= 1:
            raise InputError(f"b is {self.b}: it must lie between 0 and 1 (usual: 0.4 to 0.75).")
        if self.title_weight is not None and not self.title_weight > 0:
            raise InputError(f"The title's weight is {self.title_weight}: it must be more than 0 (usual: 0.25 to 2).")


@dataclass(frozen=True, slots=True)
class Manifest:
    """The label of a finished index. `corpus_sha256` is a hash over the passages in order, whatever file held them."""

    settings: IndexSettings
    passages: int
    corpus_sha256: str
    format: int = FORMAT

    @property
    def settings_hash(self) -> str:
        """Twelve hexadecimal digits that change with the corpus and with every setting that changes a ranking."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any], where: str) -> "Manifest":
        """Raises `InputError` for a manifest of another version of this software, or of something else."""
        if row.get("format") != FORMAT:
            raise InputError(
                f"{where} was written in index format {row.get('format')}, this version reads {FORMAT}: "
                "make it anew with `r1s index-corpus`."
            )
        try:
            return cls(IndexSettings(**row["settings"]), int(row["passages"]), str(row["corpus_sha256"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{where} has a damaged manifest ({error!r}): make it anew.") from error


class CorpusHash:
    """A running hash of passages in order."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def add(self, encoded: bytes) -> None:
        """Takes what `encode` made of the next passage."""
        self._sha256.update(encoded + b"\n")

    def hexdigest(self) -> str:
        return self._sha256.hexdigest()


def encode(passage: Passage) -> bytes:
    """One passage as bytes: a line with the lengths of id and title in characters, then id, title and text."""
    id_, title = passage.id, passage.title
    return f"{len(id_)} {len(title)}\n{id_}{title}{passage.text}".encode()


def decode(encoded: bytes) -> Passage:
    lengths, _, content = encoded.decode().partition("\n")
    id_, title = map(int, lengths.split())
    return Passage(content[:id_], content[id_ : id_ + title], content[id_ + title :])


def is_index(path: Path) -> bool:
    """Whether a folder holds a finished index."""
    return (path / MANIFEST).is_file()


def read_json(path: Path) -> dict[str, Any]:
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return row if isinstance(row, dict) else {}


def searched_fields(settings: IndexSettings) -> dict[str, float]:
    """The searched fields and their weights."""
    return {"terms": 1.0} if settings.title_weight is None else {"title": settings.title_weight, "terms": 1.0}
