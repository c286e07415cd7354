"""The corpus formats. Importing this module is cheap: each format is imported at first use.

A format turns the content of one file into items: `Passage`s, and `BadRow`s for unreadable rows. Every row of the
file becomes one or the other; nothing is guessed. Another package adds one with an entry point of the group
`r1searcher.corpus_formats`:

    FORMAT = CorpusFormat(read, about="a page per line", detects=lambda sample: sample.start.startswith(b"@page"))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Protocol

from r1searcher.common.registry import Registry

if TYPE_CHECKING:
    from r1searcher.corpora.detect import Sample
    from r1searcher.corpora.rows import Items


class Reader(Protocol):
    """The items of a file. `before` counts the rows of the corpus in earlier files: rows without an id are numbered
    through all of them. Raises `BrokenFileError` for a file that ends too early or cannot be read from some point on.
    """

    def __call__(self, file: IO[bytes], before: int = 0, /) -> Items: ...


@dataclass(frozen=True, slots=True)
class CorpusFormat:
    """`about` says what a row is, for the docs. `detects` says whether a file that begins like a sample is of this
    format; without it, the format has to be named with `--format`. `seekable` formats are read from a file on disk,
    whatever the corpus is compressed or packed in.
    """

    read: Reader
    about: str
    detects: Callable[[Sample], bool] | None = None
    seekable: bool = False


_HERE = "r1searcher.corpora.formats"
FORMATS: Registry[CorpusFormat] = Registry(
    "corpus format",
    "r1searcher.corpus_formats",
    {
        "parquet": f"{_HERE}.parquet:FORMAT",
        "kilt": f"{_HERE}.kilt:FORMAT",
        "paragraphs": f"{_HERE}.paragraphs:FORMAT",
        "hotpotqa": f"{_HERE}.hotpotqa:FORMAT",
        "jsonl": f"{_HERE}.jsonl:FORMAT",
        "hipporag": f"{_HERE}.hipporag:FORMAT",
        "dpr": f"{_HERE}.dpr:FORMAT",
        "r1-searcher": f"{_HERE}.r1_searcher:FORMAT",
    },
    CorpusFormat,
)
"""In the order in which they try to detect a file: specific ones before general ones."""
