"""What a page holds, read without a browser."""

import re
from typing import Any

from r1searcher.report.packed import unpack


def trajectories_in(page: str) -> list[dict[str, Any]]:
    """The entries of a page's trajectories, each with its `segments`: [author, text, tokens]."""
    [index] = re.findall(r'id="data"[^>]*>(.*?)</script>', page)
    read = [unpack(chunk) for chunk in re.findall(r'class="chunk">(.*?)</script>', page)]
    segments = [
        [[author, chunk["texts"][text], tokens] for author, text, tokens in row]
        for chunk in read
        for row in chunk["rows"]
    ]
    return [{**entry, "segments": parts} for entry, parts in zip(unpack(index), segments, strict=True)]
