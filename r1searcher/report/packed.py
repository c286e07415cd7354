"""Trajectories inside the page, compressed: an index that is read at once, and chunks that are read when one is shown.

Each is JSON, gzip and base64. In a chunk, a text that several trajectories have is there once.
"""

import base64
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

CHUNK = 32
"""Trajectories per chunk; `page.js` has the same number from the page."""


def pack(value: Any) -> str:
    """The value as text without `<`. The same value gives the same text."""
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode()


def unpack(text: str) -> Any:
    """The value that `pack` was given."""
    return json.loads(gzip.decompress(base64.b64decode(text)))


def chunks(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The packed chunks of trajectories' rows. A chunk has `texts`, and `rows` of [author, number of its text, tokens]
    per segment."""
    for start in range(0, len(rows), CHUNK):
        numbers: dict[str, int] = {}
        packed = [
            [[s["author"], numbers.setdefault(s["text"], len(numbers)), len(s["token_ids"])] for s in row["segments"]]
            for row in rows[start : start + CHUNK]
        ]
        yield pack({"texts": list(numbers), "rows": packed})
