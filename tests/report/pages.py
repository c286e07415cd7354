"""What a page holds, read without a browser."""

import re
from typing import Any

from r1searcher.report.packed import unpack


def trajectories_in(page: str) -> list[dict[str, Any]]:
    """The entries of a page's trajectories, each with its `segments`: [author, text, tokens]."""
    [index] = re.findall(r'id="data"[^>]*>(.*?)</script>', page)
    shared = [line for block in re.findall(r'class="shared">(.*?)</script>', page) for line in unpack(block)]
    segments = []
    for block in re.findall(r'class="chunk">(.*?)</script>', page):
        chunk = unpack(block)
        for row in chunk["rows"]:
            texts = ["".join(chunk["lines"][n] if n >= 0 else shared[-1 - n] for n in numbers) for _, numbers, _ in row]
            segments.append([[part[0], text, part[2]] for part, text in zip(row, texts, strict=True)])
    return [{**entry, "segments": parts} for entry, parts in zip(unpack(index), segments, strict=True)]
