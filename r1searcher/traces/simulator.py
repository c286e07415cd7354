"""`r1s simulate prepare`: what a simulated search engine learns from, out of recorded episodes (ZeroSearch, 3.2).

Each search of an episode can become a row: the prompt that the simulated search engine would send for it, and the
documents that were found. A search is useful if its episode was answered right and a gold answer occurs in what it
found, and noisy if neither is the case; other searches say nothing about their documents and are left out.

FILE                the rows, {"id", "kind", "prompt", "response"}: `r1s sft --set data.traces=FILE` trains on them
FILE's manifest     what they were made from
"""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from r1searcher.common import terminal
from r1searcher.common.files import sha256_of, write_json, write_rows
from r1searcher.common.manifest import manifest_file, require_new
from r1searcher.common.terminal import json_line
from r1searcher.common.versions import versions
from r1searcher.episodes.trajectory import Search, Trajectory
from r1searcher.errors import InputError
from r1searcher.evaluation.recall import first_rank
from r1searcher.retrieval.engines.simulated import KINDS, Kind, completion_of, prompt_of, templates
from r1searcher.rewards.parts import RewardContext
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import from_row, trajectory_rows


class LeftOut(StrEnum):
    """Why a search gave no row."""

    NOTHING_FOUND = "it found nothing"
    MIXED = "the answer was right without the documents, or wrong in spite of them"
    REPEATED = "the same prompt and documents as another one"
    BALANCE = "there are fewer of the other kind"
    LIMIT = "there are enough rows"


@dataclass(frozen=True, kw_only=True)
class PrepareRequest:
    """The arguments of `r1s simulate prepare`."""

    runs: Sequence[Path]
    to: Path
    min_f1: float
    max_words: int
    limit: int | None
    balance: bool
    seed: int
    as_json: bool = False

    @property
    def manifest(self) -> Path:
        return manifest_file(self.to)


@dataclass(frozen=True, slots=True)
class Row:
    """One search. `id` is a hash of prompt and response."""

    kind: Kind
    prompt: str
    response: str

    @property
    def id(self) -> str:
        return hashlib.sha256(json.dumps([self.prompt, self.response]).encode()).hexdigest()[:16]


def run_prepare(request: PrepareRequest) -> None:
    """Write the rows and their manifest, and print how many there are of each kind.

    Raises `InputError` for a folder that is not a run with trajectories, for files that exist, and if no search gives
    a row.
    """
    require_new(request.to, request.manifest)
    left_out: Counter[LeftOut] = Counter()
    rows = chosen(
        (row for run in request.runs for row in rows_of(trajectories(run), request, left_out)), request, left_out
    )
    if not rows:
        reasons = "; ".join(f"{reason}: {count:,}" for reason, count in (+left_out).items())
        raise InputError(
            f"no search of {', '.join(map(str, request.runs))} gives a row ({reasons or 'there are no searches'}); "
            "give runs with right and wrong answers, or lower --min-f1"
        )
    write_rows(
        request.to,
        ({"id": row.id, "kind": row.kind, "prompt": row.prompt, "response": row.response} for row in rows),
    )
    kinds = Counter(row.kind for row in rows)
    report: dict[str, Any] = {
        "rows": len(rows),
        **{kind: kinds[kind] for kind in KINDS},
        "left_out": {reason.name.lower(): left_out[reason] for reason in LeftOut},
    }
    write_json(request.manifest, {**_origin(request), **report})
    if request.as_json:
        json_line(report)
        return
    screen = terminal.console()
    for reason, count in (+left_out).items():
        screen.print(f"left out, {reason}: {count:,}", style="dim", soft_wrap=True)
    counted = ", ".join(f"{kinds[kind]:,} {kind}" for kind in KINDS)
    screen.print(f"{len(rows):,} rows, {counted}: {request.to}", soft_wrap=True)


def trajectories(folder: Path) -> Iterator[Trajectory]:
    """The training episodes of a run. Raises `InputError` for a folder without them and for a damaged file."""
    steps = RunFolder(folder).recorded_steps()
    if not steps:
        raise InputError(f"{folder} has no trajectories: give the folder of a run of stage1 or stage2")
    for _, step in steps:
        for row in trajectory_rows(step):
            yield from_row(row)


def rows_of(episodes: Iterator[Trajectory], request: PrepareRequest, left_out: Counter[LeftOut]) -> Iterator[Row]:
    """The rows of the searches of `episodes`; counts those that are left out."""
    for episode in episodes:
        right = RewardContext(episode).scores.f1 >= request.min_f1
        for search in episode.searches:
            kind = kind_of(search, episode.gold_answers, right)
            if isinstance(kind, LeftOut):
                left_out[kind] += 1
                continue
            documents = [
                (hit.passage.title, " ".join(hit.passage.text.split()[: request.max_words])) for hit in search.hits
            ]
            prompt = prompt_of(kind, episode.question, episode.gold_answers, search.query, len(documents))
            yield Row(kind, prompt, completion_of(documents))


def kind_of(search: Search, gold_answers: Sequence[str], right: bool) -> Kind | LeftOut:
    """Whether the documents of a search are an example of useful or of noisy ones."""
    if not search.hits:
        return LeftOut.NOTHING_FOUND
    has_answer = first_rank(gold_answers, search.hits) is not None
    if right is not has_answer:
        return LeftOut.MIXED
    return "useful" if right else "noisy"


def chosen(rows: Iterator[Row], request: PrepareRequest, left_out: Counter[LeftOut]) -> list[Row]:
    """Different rows in an order that depends on the seed: as many of each kind, and not more than the limit."""
    by_kind: dict[Kind, dict[str, Row]] = {kind: {} for kind in KINDS}
    for row in rows:
        if row.id in by_kind[row.kind]:
            left_out[LeftOut.REPEATED] += 1
        by_kind[row.kind][row.id] = row
    rng = random.Random(request.seed)
    shuffled = {kind: rng.sample(list(found.values()), len(found)) for kind, found in by_kind.items()}
    if request.balance:
        fewest = min(map(len, shuffled.values()))
        left_out[LeftOut.BALANCE] = sum(len(found) - fewest for found in shuffled.values())
        shuffled = {kind: found[:fewest] for kind, found in shuffled.items()}
    mixed = [row for found in shuffled.values() for row in found]
    rng.shuffle(mixed)
    kept = mixed[: request.limit]
    left_out[LeftOut.LIMIT] = len(mixed) - len(kept)
    return kept


def _origin(request: PrepareRequest) -> Mapping[str, Any]:
    return {
        "runs": [_manifest_of(run) for run in request.runs],
        "min_f1": request.min_f1,
        "max_words": request.max_words,
        "limit": request.limit,
        "balance": request.balance,
        "seed": request.seed,
        "prompts_sha256": hashlib.sha256(json.dumps(templates(), sort_keys=True).encode()).hexdigest(),
        "rows_sha256": sha256_of(request.to),
        "versions": versions(),
    }


def _manifest_of(folder: Path) -> dict[str, Any]:
    file = RunFolder(folder).manifest
    return {"folder": str(folder), "manifest_sha256": sha256_of(file) if file.exists() else None}
