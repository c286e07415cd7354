"""`r1s data split` and `r1s data merge`: question files from question files, by a seed, with a manifest.

Questions with the same text, apart from case, articles and punctuation, count as one: `split` puts them into the same
part, so that none is trained on and held out, and `merge` keeps the first of them.
"""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r1searcher.common import terminal
from r1searcher.common.files import sha256_of, write_json, write_rows
from r1searcher.common.manifest import manifest_file, require_new
from r1searcher.common.versions import versions
from r1searcher.errors import InputError
from r1searcher.questions.named import Dataset, open_dataset
from r1searcher.questions.question import Question
from r1searcher.questions.rows import row_of
from r1searcher.rewards.metrics import normalize

LEFT_OUT = "left_out"
"""What `split` reports as the number of questions in no part."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a split. `size` is a share below 1, a number of questions, or None for all that the others leave."""

    name: str
    size: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Part":
        """`train`, `held_out=200` or `held_out=0.1`. Raises `InputError` for anything else."""
        name, equals, given = text.partition("=")
        if not name.replace("-", "").replace("_", "").isalnum() or name == "manifest":
            raise InputError(f"--part {text!r}: a part is named with letters, digits, - and _, and not manifest")
        if not equals:
            return cls(name)
        try:
            size = float(given)
        except ValueError:
            size = math.nan
        if not (0 < size < 1 or (size >= 1 and size.is_integer())):  # also for nan and inf
            raise InputError(f"--part {text!r}: give a share such as {name}=0.1, or a number such as {name}=200")
        return cls(name, size)


@dataclass(frozen=True, kw_only=True)
class SplitRequest:
    """The arguments of `r1s data split`."""

    questions: str
    parts: Sequence[str]
    to: Path
    data_dir: Path | None = None
    limit: int | None = None
    seed: int = 7
    as_json: bool = False


@dataclass(frozen=True, kw_only=True)
class MergeRequest:
    """The arguments of `r1s data merge`. `each` is the most questions to take of each dataset, `limit` of all."""

    questions: Sequence[str]
    to: Path
    data_dir: Path | None = None
    each: int | None = None
    limit: int | None = None
    seed: int = 7
    as_json: bool = False


def run_split(request: SplitRequest) -> None:
    """Write a file per part and the manifest into a new folder. Raises `InputError` also for parts that do not fit."""
    parts = [Part.parse(text) for text in request.parts]
    if repeated := [name for name, count in Counter(part.name for part in parts).items() if count > 1]:
        raise InputError(f"--part {repeated[0]} is given twice: name each part once")
    require_new(request.to)
    data = open_dataset(request.questions, request.data_dir, limit=request.limit, training=True)
    chosen = split(data.questions, parts, request.seed)
    files = {name: request.to / f"{name}.jsonl" for name in chosen}
    for name, questions in chosen.items():
        write_rows(files[name], map(row_of, questions))
    counts = {name: len(questions) for name, questions in chosen.items()}
    report = {"parts": counts, LEFT_OUT: len(data.questions) - sum(counts.values())}
    origin = {"questions": _described(data), "asked": list(request.parts), "limit": request.limit}
    sha256 = {name: sha256_of(file) for name, file in files.items()}
    write_json(request.to / "manifest.json", {**origin, **_reproducible(request.seed), "sha256": sha256, **report})
    lines = [f"{counts[name]:,} questions: {file}" for name, file in files.items()]
    _print(report, [*lines, f"{report[LEFT_OUT]:,} questions in no part"], request.as_json)


def split(questions: Sequence[Question], parts: Sequence[Part], seed: int) -> dict[str, list[Question]]:
    """The questions of each part, in the order of `questions`; the choice depends on `seed`.

    Equal questions stay together, so a part may have fewer questions than its size if only groups remain that do not
    fit. Raises `InputError` if a part would be empty or the sizes are more than there are, and for two parts without a
    size.
    """
    rest = [part.name for part in parts if part.size is None]
    if len(rest) > 1:
        raise InputError(f"--part {rest[1]}: only one part can take the rest; give it a size, such as {rest[1]}=0.1")
    room = _sizes(parts, len(questions))
    groups: dict[str, list[int]] = defaultdict(list)
    for number, question in enumerate(questions):
        groups[normalize(question.text)].append(number)
    order = list(groups.values())
    random.Random(seed).shuffle(order)
    members: dict[str, list[int]] = {part.name: [] for part in parts}
    for group in order:
        name = next((name for name, left in room.items() if left >= len(group)), rest[0] if rest else None)
        if name is not None:
            members[name] += group
            if name in room:
                room[name] -= len(group)
    if empty := [name for name, numbers in members.items() if not numbers]:
        raise InputError(f"--part {empty[0]} would have no question: there are {len(questions):,}; give other sizes")
    return {name: [questions[number] for number in sorted(numbers)] for name, numbers in members.items()}


def _sizes(parts: Sequence[Part], n: int) -> dict[str, int]:
    """The number of questions of each part with a size. Shares are rounded together, so that shares of 1 are all."""
    sizes, share = {}, 0.0
    for part in parts:
        if part.size is not None and part.size < 1:
            sizes[part.name] = round((share + part.size) * n) - round(share * n)
            share += part.size
        elif part.size is not None:
            sizes[part.name] = int(part.size)
    if sum(sizes.values()) > n:
        raise InputError(f"--part: the parts need {sum(sizes.values()):,} questions of {n:,}; give smaller sizes")
    return sizes


def run_merge(request: MergeRequest) -> None:
    """Write the merged file and its manifest, and print how many questions of each dataset are in it."""
    manifest = manifest_file(request.to)
    require_new(request.to, manifest)
    found = [open_dataset(name, request.data_dir, training=True) for name in request.questions]
    names = _distinct([data.name for data in found])
    merged, repeated = merge({name: data.questions for name, data in zip(names, found, strict=True)}, request)
    write_rows(request.to, ({**row_of(question), "source": name} for name, question in merged))
    counts = Counter(name for name, _ in merged)
    report = {"questions": len(merged), "sources": {name: counts[name] for name in names}, "repeated": repeated}
    origin = {name: _described(data) for name, data in zip(names, found, strict=True)}
    settings = {"each": request.each, "limit": request.limit, **_reproducible(request.seed)}
    write_json(manifest, {"from": origin, **settings, "questions_sha256": sha256_of(request.to), **report})
    lines = [f"{counts[name]:,} questions of {name}" for name in names]
    said = f"{len(merged):,} questions, without {repeated:,} that repeat an earlier one: {request.to}"
    _print(report, [*lines, said], request.as_json)


def merge(found: Mapping[str, Sequence[Question]], request: MergeRequest) -> tuple[list[tuple[str, Question]], int]:
    """(name of the dataset, question) pairs in an order that depends on the seed, and how many repeat an earlier one.

    A question with an id that another dataset has too gets the dataset's name in front of it.
    """
    rng = random.Random(request.seed)
    ids = Counter(id_ for questions in found.values() for id_ in {question.id for question in questions})
    seen: set[str] = set()
    merged: list[tuple[str, Question]] = []
    repeated = 0
    for name, questions in found.items():
        different = []
        for question in questions:
            text = normalize(question.text)
            if text in seen:
                repeated += 1
                continue
            seen.add(text)
            different.append(question if ids[question.id] == 1 else replace(question, id=f"{name}/{question.id}"))
        merged += [(name, one) for one in rng.sample(different, min(len(different), request.each or len(different)))]
    rng.shuffle(merged)
    return merged[: request.limit], repeated


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, numbered where they repeat an earlier one."""
    return [name if name not in names[:at] else f"{name}-{at + 1}" for at, name in enumerate(names)]


def _described(data: Dataset) -> dict[str, Any]:
    return {"source": data.source, "sha256": data.sha256, "n": len(data.questions), "warnings": list(data.warnings)}


def _reproducible(seed: int) -> dict[str, Any]:
    return {"seed": seed, "versions": versions()}


def _print(report: Mapping[str, Any], lines: Sequence[str], as_json: bool) -> None:
    if as_json:
        terminal.json_line(report)
        return
    for line in lines:
        terminal.text_line(line)
