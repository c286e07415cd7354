"""The manifest of an index of any engine: its settings, its corpus, its number of passages."""

import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from r1searcher.common.files import cause_of, parse_json, read_text
from r1searcher.common.records import first_of
from r1searcher.corpora.passage import Passage
from r1searcher.errors import FileError, InputError
from r1searcher.retrieval.indexing.analyzer import Analyzer

MANIFEST, ENGINE, PROGRESS = "manifest.json", "tantivy", "progress.json"
"""Names in the folder of an embedded index."""

T = TypeVar("T")

FORMAT = 2
"""Incremented whenever an older index would be read wrongly."""


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """How passages are ranked (BM25, Robertson and Zaragoza 2009).

    `title_weight` None puts title and text into one field, as Lucene baselines do; a number makes them separate fields
    and multiplies the title's score by it.
    """

    analyzer: str = "english"
    k1: float = 1.2
    b: float = 0.75
    title_weight: float | None = None

    def __post_init__(self) -> None:
        Analyzer(self.analyzer)
        if not 0 <= self.k1 < math.inf:
            raise InputError(f"k1 is {self.k1}: it must be 0 or more (usual: 0.9 to 1.2).")
        if not 0 <= self.b <= 1:
            raise InputError(f"b is {self.b}: it must be between 0 and 1 (usual: 0.4 to 0.75).")
        if self.title_weight is not None and not 0 < self.title_weight < math.inf:
            raise InputError(f"The title's weight is {self.title_weight}: it must be more than 0 (usual: 0.25 to 2).")


@dataclass(frozen=True, slots=True)
class Manifest:
    """The label of a finished index. `corpus_sha256` is a hash over the passages in order, regardless of their file."""

    settings: IndexSettings
    passages: Annotated[int, Field(ge=0)]
    corpus_sha256: str
    format: int = FORMAT

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that change with the corpus and with every setting that changes a ranking."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: object, where: str) -> "Manifest":
        """Raises `InputError` for a manifest of another version of this software, or of something else."""
        if kind_in(row) == "dense":
            folder = Path(where).parent
            raise InputError(f"{folder} is a dense index: write dense:{folder}")
        format_ = row.get("format") if isinstance(row, dict) else None
        if isinstance(format_, int) and format_ != FORMAT:
            raise InputError(
                f"{where} was written in index format {format_}, this version reads {FORMAT}: "
                "build it again with `r1s index-corpus`."
            )
        return validated(cls, row, where)


def validated(kind: type[T], row: object, where: str) -> T:
    """JSON as one of our dataclasses. Raises `InputError` with its first problem."""
    try:
        return TypeAdapter(kind).validate_python(row, strict=False)
    except ValidationError as error:
        place, message = first_of(error)
        raise InputError(
            f"{where} is damaged ({place or 'the whole'}: {message}): build it again with `r1s index-corpus`."
        ) from None


class CorpusHash:
    """A running hash of passages in order."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def add(self, encoded: bytes) -> None:
        """Adds the result of `encode` for the next passage."""
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


def folder_of(url: str) -> str:
    """The folder in a retriever URL of an embedded index, as it was given: `index/`, `file:index/`."""
    return url.removeprefix("file:").removeprefix("bm25:")


def is_index(path: Path) -> bool:
    """Whether a folder contains a finished index. Raises `FileError` if this user may not read it."""
    try:
        return (path / MANIFEST).is_file()
    except PermissionError as error:
        raise FileError(f"{path} cannot be read: {cause_of(error)}") from error
    except OSError:  # a name that is too long
        return False


def manifest_row(folder: Path) -> Any:
    """The JSON of the manifest in a folder.

    Raises `InputError` if it is damaged, and `FileError` if it cannot be read.
    """
    path = folder / MANIFEST
    try:
        return parse_json(read_text(path, "the index manifest"))
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}): build the index again with `r1s index-corpus`.") from error


def kind_in(row: object) -> str:
    """The kind of engine that a manifest is of. That of BM25 does not name it."""
    kind = row.get("kind") if isinstance(row, dict) else None
    return kind if isinstance(kind, str) else "bm25"


def kind_of_index(folder: Path) -> str:
    """The kind of engine that made the index in a folder; BM25 where there is none, or its manifest cannot be read."""
    try:
        return kind_in(manifest_row(folder)) if is_index(folder) else "bm25"
    except (FileError, InputError, ValueError):  # opening it reports the error; ValueError: a NUL in the name
        return "bm25"


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the BM25 index in a folder. Raises what `manifest_row` and `Manifest.from_json` raise."""
    return Manifest.from_json(manifest_row(folder), str(folder / MANIFEST))


def refuse_unreadable(folder: Path) -> None:
    """Raises `FileError` if a file of an index exists and this user may not read it."""
    for path in (folder, *_entries(folder), *_entries(folder / ENGINE)):
        if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)) and os.path.lexists(path):
            raise FileError(
                f"{path} cannot be read: permission denied; its owner can allow it with `chmod -R a+rX {folder}`"
            )


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() and os.access(folder, os.R_OK | os.X_OK) else []


def searched_fields(settings: IndexSettings) -> dict[str, float]:
    """The searched fields and their weights."""
    return {"terms": 1.0} if settings.title_weight is None else {"title": settings.title_weight, "terms": 1.0}
