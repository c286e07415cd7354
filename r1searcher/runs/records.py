"""A trajectory as one JSON row, and back."""

from collections.abc import Mapping
from typing import Any

from r1searcher.corpora.passage import Passage
from r1searcher.episodes.trajectory import Author, Search, Segment, StopReason, Trajectory
from r1searcher.retrieval.base import Hit


def to_row(trajectory: Trajectory, **more: Any) -> dict[str, Any]:
    """Everything an episode left behind; `more` (reward parts, step, seconds) stands in front."""
    return {
        **more,
        "question": trajectory.question,
        "golds": list(trajectory.golds),
        "stop": trajectory.stop.value,
        "segments": [
            {
                "author": segment.author.value,
                "text": segment.text,
                "token_ids": list(segment.token_ids),
                **({"logprobs": list(segment.logprobs)} if segment.logprobs is not None else {}),
                **({"overhang": segment.overhang} if segment.overhang else {}),
            }
            for segment in trajectory.segments
        ],
        "searches": [
            {
                "query": search.query,
                "shown": search.shown,
                "seconds": round(search.seconds, 6),
                "hits": [
                    {"id": h.passage.id, "title": h.passage.title, "text": h.passage.text, "score": h.score}
                    for h in search.hits
                ],
            }
            for search in trajectory.searches
        ],
    }


def from_row(row: Mapping[str, Any]) -> Trajectory:
    """The trajectory that `to_row` wrote."""
    return Trajectory(
        question=row["question"],
        golds=tuple(row["golds"]),
        segments=tuple(
            Segment(
                Author(s["author"]),
                s["text"],
                tuple(s["token_ids"]),
                tuple(s["logprobs"]) if "logprobs" in s else None,
                s.get("overhang", 0),
            )
            for s in row["segments"]
        ),
        searches=tuple(
            Search(
                s["query"],
                tuple(Hit(Passage(h["id"], h["title"], h["text"]), h["score"]) for h in s["hits"]),
                s["shown"],
                s["seconds"],
            )
            for s in row["searches"]
        ),
        stop=StopReason(row["stop"]),
    )
