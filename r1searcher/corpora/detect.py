"""Detects the format of a file by its first bytes, and recognizes well-known files without passages.

A JSON file is recognized by the keys of its first object, which are read without parsing: a page may be longer than
the part that was read.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cached_property

from r1searcher.corpora.formats import FORMATS
from r1searcher.corpora.rows import UnusableShapeError

QUESTION_KEYS = frozenset({"question", "query", "question_text", "golden_answers", "reward_model"})

_INSTEAD = "index the corpus that they were made from, such as wiki-18 or hotpotqa-abstracts"
_QUESTIONS = f"holds questions and not passages: give it as a dataset (data.train, --dataset), and {_INSTEAD}"
_DPR = "is DPR's training data, which holds single passages per question: index DPR's psgs_w100.tsv instead"
_SQUAD = "is SQuAD's questions with their contexts: write each paragraph as a row of id, title, text"
_NQ = "is Natural Questions' original release of whole pages: index wiki-18 instead"
_QRELS = "holds relevance judgments (qrels) and not passages: index corpus.jsonl of the same dataset"
_QUERIES = "holds BEIR's queries and not passages: index corpus.jsonl of the same dataset"

_PACKED: Mapping[bytes, str] = {
    b"PK\x03\x04": "is a ZIP archive: unpack it, and give the folder",
    b"\xfd7zXZ\x00": "is compressed with xz: unpack it, or compress it with gzip, bzip2 or zstd",
    b"7z\xbc\xaf\x27\x1c": "is a 7z archive: unpack it, and give the folder",
    b"ARROW1": "is an Arrow file: save the dataset as Parquet or JSON lines",
    b"%PDF": "is a PDF: write its text as rows of id, title, text",
    b"\x93NUMPY": "holds NumPy arrays and not passages",
    b"SQLite format 3\x00": "is an SQLite database: write its text as rows of id, title, text",
    b"<mediawiki": "is a dump of a wiki: extract its text first, or index wiki-18 or kilt-100w",
}


class Sample:
    """The start of a file, from which formats recognize their own: its first bytes (64 KiB, or all of a shorter
    file), and its name."""

    def __init__(self, start: bytes, name: str = "") -> None:
        self.start = start
        self.name = name

    @cached_property
    def text(self) -> str:
        """The bytes as UTF-8, without a byte order mark and leading white space."""
        return self.start.decode("utf-8", "replace").removeprefix("\ufeff").lstrip()

    @cached_property
    def lines(self) -> list[str]:
        """Those of the first 20 lines that have more than white space."""
        return [line for line in self.text.split("\n", 20)[:20] if line.strip()]

    @property
    def header(self) -> list[str]:
        """The cells of the first line, separated by tabs; empty if there is none."""
        return self.lines[0].rstrip("\r").split("\t") if self.lines else []

    @property
    def is_array(self) -> bool:
        return self.text.startswith("[")

    @cached_property
    def is_json(self) -> bool:
        """An array, or a line that begins like a JSON object."""
        return self._packed is None and (self.is_array or any(line.startswith("{") for line in self.lines))

    @cached_property
    def keys(self) -> Mapping[str, str]:
        """The keys of the first JSON object, each with the character that its value begins with; empty without one."""
        if not self.is_json:
            return {}
        line = "" if self.is_array else next(line for line in self.lines if line.startswith("{"))
        return _keys(self.text[self.text.index(line) :])

    @cached_property
    def problem(self) -> str | None:
        """Description of a well-known file without passages; None for any other."""
        if self._packed or self.is_json:
            return self._packed or problem_of_keys(self.keys, self.text, self.name)
        return _problem_of_lines(self.lines, self.header)

    @cached_property
    def _packed(self) -> str | None:
        return next((problem for magic, problem in _PACKED.items() if self.start.startswith(magic)), None)


def detect_format(start: bytes, name: str = "") -> str:
    """The format of a file by its first bytes (64 KiB, or all of a shorter file) and, for BEIR's queries, its name.

    Formats of other packages are asked first. Raises `UnusableShapeError` for a file of no format.

    >>> detect_format(b'{"id": 1, "contents": "Oslo"}')
    'jsonl'
    """
    sample = Sample(start, name)
    for known in _in_order():
        detects = FORMATS[known].detects
        if detects is not None and detects(sample):
            return known
    if sample.problem:
        raise UnusableShapeError(sample.problem)
    if not sample.lines:
        raise UnusableShapeError("contains only white space")
    raise UnusableShapeError(f"is not in a known corpus format: name one with --format ({', '.join(FORMATS)})")


def _in_order() -> Iterator[str]:
    yield from (name for name in FORMATS if name not in FORMATS.builtin)
    yield from FORMATS.builtin


def problem_of_keys(keys: Mapping[str, str], text: str = "", name: str = "") -> str | None:
    """Description of a well-known file of objects with these keys and without passages; None for any other."""
    if "positive_ctxs" in keys:
        return _DPR
    if keys.get("data") == "[" and '"qas"' in text:
        return _SQUAD
    if {"question", "answers"} <= keys.keys() and keys.get("context") == '"':  # SQuAD as on Hugging Face
        return _SQUAD
    if {"document_text", "document_html", "document_tokens", "document"} & keys.keys() and (
        {"question_text", "annotations"} & keys.keys()
    ):
        return _NQ
    if {"query-id", "corpus-id"} <= keys.keys():
        return _QRELS
    if keys.get("Data") == "[" or (QUESTION_KEYS & keys.keys() and not {"contents", "text"} & keys.keys()):
        return _QUESTIONS
    if "_id" in keys and "title" not in keys and re.search(r"(^|[/:])queries[^/]*$", name):
        return _QUERIES
    return None


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]')


def _keys(text: str) -> dict[str, str]:
    """The keys of the first JSON object in a text that may be cut off, with the character after each colon."""
    keys: dict[str, str] = {}
    depth, last = 0, ""
    for token in _TOKEN.finditer(text, max(text.find("{"), 0)):
        mark = token.group()[0]
        if mark in "{[":
            depth += 1
        elif mark in "}]":
            depth -= 1
            if depth == 0:
                break
        elif mark == ":" and depth == 1 and last:
            keys[last] = text[token.end() :].lstrip()[:1]
        last = token.group()[1:-1] if mark == '"' else ""
    return keys


def _problem_of_lines(lines: list[str], header: list[str]) -> str | None:
    if not lines:
        return None
    if {"query-id", "corpus-id"} <= set(header) or all(_QREL.match(line) for line in lines[:3]):
        return _QRELS
    if all(re.match(r"[^\t]+\t\"?\[['\"]", line) for line in lines[:3]):  # DPR's question and list of answers
        return _QUESTIONS
    return None


_QREL = re.compile(r"\S+[ \t]+(?:Q?0[ \t]+)?\S+[ \t]+-?\d+\s*$")
