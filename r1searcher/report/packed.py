"""Trajectories inside the page, compressed: an index that is read at once, and chunks that are read when one is shown.

Each block is JSON, gzip and base64. Segments are stored line by line, and a line that several chunks have, such as a
passage that is found again and again, is stored once, in a block of shared lines.
"""

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CHUNK = 32
"""Trajectories per chunk."""

SHARED = 256
"""Shared lines per block."""

SHORT = 40
"""Characters up to which a line is not shared: it compresses well where it is."""


@dataclass(frozen=True, slots=True)
class Packed:
    """Packed blocks. A chunk has `lines`, and `rows` of [author, numbers of lines, tokens] per segment. The number
    -1 is the first shared line, -2 the second."""

    chunks: Sequence[str]
    shared: Sequence[str]


def pack(value: Any) -> str:
    """The value as text without `<`. The same value gives the same text."""
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode()


def unpack(text: str) -> Any:
    """The value that `pack` was given."""
    return json.loads(gzip.decompress(base64.b64decode(text)))


def pack_trajectories(rows: Sequence[Mapping[str, Any]]) -> Packed:
    """The segments of trajectories' rows, in blocks."""
    parts = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    repeated = _repeated(parts)
    shared: dict[str, int] = {}
    chunks = []
    for part in parts:
        lines: dict[str, int] = {}

        def number(line: str, lines: dict[str, int] = lines) -> int:
            if hash(line) in repeated:
                return -1 - shared.setdefault(line, len(shared))
            return lines.setdefault(line, len(lines))

        packed = [
            [[s["author"], [number(line) for line in _lines(s["text"])], len(s["token_ids"])] for s in row["segments"]]
            for row in part
        ]
        chunks.append(pack({"lines": list(lines), "rows": packed}))
    table = list(shared)
    return Packed(chunks, [pack(table[start : start + SHARED]) for start in range(0, len(table), SHARED)])


def _lines(text: str) -> list[str]:
    """The text in pieces that end at line feeds."""
    return [line + "\n" for line in text.split("\n")[:-1]] + [text.rpartition("\n")[2]]


def _repeated(parts: Sequence[Sequence[Mapping[str, Any]]]) -> set[int]:
    """The hashes of the lines that occur in several parts. One that is there by chance only shares one more line."""
    first: dict[int, int] = {}
    repeated: set[int] = set()
    for at, part in enumerate(parts):
        for segment in (segment for row in part for segment in row["segments"]):
            for line in _lines(segment["text"]):
                if len(line) > SHORT and first.setdefault(hash(line), at) != at:
                    repeated.add(hash(line))
    return repeated
