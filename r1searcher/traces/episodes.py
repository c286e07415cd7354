"""`r1s data traces`: good episodes of runs and evaluations as traces, for rejection-sampling fine-tuning.

An episode is good if its answer is right, it breaks no format rule and it searched. Of the good episodes of a question,
the shortest are kept.

traces.jsonl                one trace per line, in an order that depends on the seed
traces.manifest.json        what they were made from, and how many episodes were left out
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from r1searcher.common import terminal
from r1searcher.common.files import sha256_of, write_json
from r1searcher.common.manifest import manifest_file, require_new
from r1searcher.common.terminal import json_line
from r1searcher.common.versions import versions
from r1searcher.episodes.trajectory import Trajectory
from r1searcher.errors import InputError
from r1searcher.evaluation.folder import EvaluationFolder
from r1searcher.evaluation.predictions import read_predictions
from r1searcher.questions.traces import Trace, write_traces
from r1searcher.rewards.format import MAX_ANSWER_WORDS
from r1searcher.rewards.parts import RewardContext
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.resolved import read_run


class Refused(StrEnum):
    """Why an episode gave no trace."""

    NO_EPISODE = "the row has an answer only, without the episode"
    WRONG = "the answer is wrong"
    FORMAT = "it breaks a format rule"
    NO_SEARCH = "it has too few searches"
    LONGER = "its question has shorter ones, or the same one"


@dataclass(frozen=True, kw_only=True)
class TracesRequest:
    """The arguments of `r1s data traces`."""

    sources: Sequence[Path]
    to: Path
    min_f1: float = 1.0
    min_searches: int = 1
    per_question: int = 1
    limit: int | None = None
    seed: int = 7
    as_json: bool = False

    @property
    def manifest(self) -> Path:
        return manifest_file(self.to)


@dataclass(frozen=True, slots=True)
class Source:
    """Files or folders of predictions, and how strictly the answers of their episodes are judged."""

    parts: Sequence[Path]
    max_answer_words: int = MAX_ANSWER_WORDS
    format_rules: tuple[str, ...] = ()


def run_traces(request: TracesRequest) -> None:
    """Write the traces and their manifest, and print how many episodes were left out, and why.

    Raises `InputError` for sources without episodes, for files that exist, and if no episode is good.
    """
    require_new(request.to, request.manifest)
    refused: Counter[Refused] = Counter()
    good: dict[str, list[tuple[str, Trajectory]]] = defaultdict(list)
    for path in request.sources:
        for id_, episode in good_episodes(source_of(path), request, refused):
            good[episode.question].append((id_, episode))
    traces = shortest(good, request, refused)
    if not traces:
        reasons = "; ".join(f"{reason}: {count:,}" for reason, count in refused.items())
        raise InputError(
            f"no episode of {', '.join(map(str, request.sources))} is good enough for a trace ({reasons}); lower "
            "--min-f1 or --min-searches, or sample more"
        )
    write_traces(request.to, traces)
    report = {
        "traces": len(traces),
        "questions": len({id_ for id_, _ in traces}),
        "left_out": {reason.name.lower(): refused[reason] for reason in Refused},
    }
    write_json(request.manifest, {**_origin(request), **report})
    if request.as_json:
        json_line(report)
        return
    screen = terminal.console()
    for reason, count in refused.items():
        screen.print(f"left out, {reason}: {count:,}", style="dim", soft_wrap=True)
    screen.print(f"{len(traces):,} traces of {report['questions']:,} questions: {request.to}", soft_wrap=True)


def source_of(path: Path) -> Source:
    """Where the episodes of a run, an evaluation or a predictions file are. Raises `InputError` if there are none."""
    run, evaluation = RunFolder(path), EvaluationFolder(path)
    if steps := run.recorded_steps():
        _, settings = read_run(run)
        return Source([step for _, step in steps], settings.reward.max_answer_words, settings.reward.format_rules)
    if path.is_dir() and not evaluation.predictions.exists():
        raise InputError(f"{path} has no episodes: give a run of stage1 or stage2, an evaluation, or its predictions")
    return Source([evaluation.predictions if path.is_dir() else path])


def good_episodes(
    source: Source, request: TracesRequest, refused: Counter[Refused]
) -> Iterator[tuple[str, Trajectory]]:
    """The good episodes with the ids of their questions; counts the others."""
    for prediction in (one for part in source.parts for one in read_predictions(part)):
        judged = _refusal(prediction.trajectory, source, request)
        if isinstance(judged, Refused):
            refused[judged] += 1
        else:
            yield prediction.key.removeprefix("/"), judged


def _refusal(episode: Trajectory | None, source: Source, request: TracesRequest) -> Trajectory | Refused:
    if episode is None or not any(segment.token_ids for segment in episode.segments):
        return Refused.NO_EPISODE
    context = RewardContext(episode, source.max_answer_words, source.format_rules)
    if context.scores.f1 < request.min_f1:
        return Refused.WRONG
    if context.violations:
        return Refused.FORMAT
    return episode if len(episode.searches) >= request.min_searches else Refused.NO_SEARCH


def shortest(
    good: Mapping[str, Sequence[tuple[str, Trajectory]]], request: TracesRequest, refused: Counter[Refused]
) -> list[tuple[str, Trace]]:
    """The shortest episodes of each question, all different, in an order that depends on the seed."""
    kept: list[tuple[str, Trace]] = []
    for episodes in good.values():
        by_length = sorted(episodes, key=lambda one: written_tokens(one[1]))
        different = {trace_of(episode): by_length[0][0] for _, episode in by_length}
        traces = list(different)[: request.per_question]
        refused[Refused.LONGER] += len(episodes) - len(traces)
        kept += [(different[trace], trace) for trace in traces]
    random.Random(request.seed).shuffle(kept)
    return kept[: request.limit]


def written_tokens(episode: Trajectory) -> int:
    """How many tokens the model wrote."""
    return sum(episode.mask)


def trace_of(episode: Trajectory) -> Trace:
    """The episode as an example. What was sampled after a stop string is not part of it."""
    return tuple((segment.author, segment.text_before_stop) for segment in episode.segments)


def _origin(request: TracesRequest) -> dict[str, Any]:
    return {
        "sources": [_described(path) for path in request.sources],
        "min_f1": request.min_f1,
        "min_searches": request.min_searches,
        "per_question": request.per_question,
        "limit": request.limit,
        "seed": request.seed,
        "traces_sha256": sha256_of(request.to),
        "versions": versions(),
    }


def _described(path: Path) -> dict[str, Any]:
    """A source by its manifest, or by its content where it is a file."""
    file = RunFolder(path).manifest if path.is_dir() else path
    return {"path": str(path), "sha256": sha256_of(file) if file.exists() else None}
