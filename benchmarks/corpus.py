"""A benchmark corpus of any size: real passages as templates, their words redrawn from a Zipfian vocabulary.

Without real passages (`data/retrieval/c20k.jsonl` in the folder that R1S_TEST_SHARED names, or in `shared` next to the
checkout), templates use only the vocabulary. The same seed gives the same corpus.
"""

import json
import os
import random
from bisect import bisect
from collections import Counter
from itertools import accumulate
from pathlib import Path

_SHARED = Path(os.environ.get("R1S_TEST_SHARED") or Path(__file__).resolve().parents[2] / "shared")
SHARED = _SHARED / "data" / "retrieval"
_ONSETS = ["b", "br", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "st", "t", "tr", "v", "z"]
_SYLLABLES = [onset + vowel + coda for onset in _ONSETS for vowel in "aeiou" for coda in ("", "n", "r", "s")]
_COMMON = ["the", "of", "and", "in", "a", "to", "was", "is", "for", "on", "as", "by", "with", "he", "at", "from", "his"]


def write_corpus(path: Path, passages: int, seed: int = 7) -> None:
    """JSONL of `id`, `title`, `text`; about 500 bytes per passage."""
    if path.exists():
        return
    draw = random.Random(seed)
    templates = _templates(draw)
    counts = Counter(word for words in templates for word in words)
    frequent = {word for word, _ in counts.most_common(150)}
    made = sorted({_word(draw) for _ in range(int(300_000 * (passages / 1e6) ** 0.6))})
    vocabulary = [word for word, _ in counts.most_common() if word not in frequent] + made
    weights = list(accumulate(1 / (rank + 2.7) ** 1.07 for rank in range(len(vocabulary))))
    new = path.with_suffix(".new")
    with new.open("w", encoding="utf-8") as file:
        for number in range(passages):
            words = draw.choice(templates)
            replaced: dict[str, str] = {}  # the same replacement throughout a passage, so that words can repeat
            for word in words:
                if word not in frequent and word not in replaced:
                    drawn = vocabulary[min(bisect(weights, draw.random() * weights[-1]), len(vocabulary) - 1)]
                    replaced[word] = drawn if word[0].isupper() or draw.random() < 0.5 else word
            text = " ".join(replaced.get(word, word) for word in words)
            row = {"id": str(number), "title": " ".join(text.split()[:3]), "text": text}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    new.rename(path)


def queries(kind: str, count: int = 200) -> list[str]:
    """`questions`, or `queries` (keywords): real ones if available."""
    real = SHARED / f"bench_{kind}.txt"
    if real.exists():
        return real.read_text(encoding="utf-8").splitlines()[:count]
    draw = random.Random(11)
    words = [_word(draw) for _ in range(2000)]
    start, length = ("Who was the first of the", 8) if kind == "questions" else ("", 4)
    return [f"{start} {' '.join(draw.choices(words, k=length))}".strip() for _ in range(count)]


def _templates(draw: random.Random) -> list[list[str]]:
    real = SHARED / "c20k.jsonl"
    if real.exists():
        with real.open(encoding="utf-8") as lines:
            return [row["text"].split() for row in map(json.loads, lines) if row["text"]]
    words = [_word(draw) for _ in range(20_000)]
    return [[draw.choice(_COMMON if draw.random() < 0.4 else words) for _ in range(90)] for _ in range(5000)]


def _word(draw: random.Random) -> str:
    word = "".join(draw.choice(_SYLLABLES) for _ in range(draw.choice((2, 2, 3, 3, 4))))
    return word.capitalize() if draw.random() < 0.6 else word
