"""Many episodes at once through the episode loop: a generator whose turns are given, and a tokenizer of words.

`tests/retrieval/test_many_episodes.py` and `benchmarks/retrieval_scale.py` run them against real engines.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from r1searcher.episodes.loop import EpisodeLimits, EpisodeRequest, FinishReason, Generation, run_episode
from r1searcher.episodes.protocols.r1_searcher import R1_SEARCHER
from r1searcher.episodes.trajectory import StopReason, Trajectory
from r1searcher.retrieval.base import Retriever
from r1searcher.retrieval.links.retry import RetryingRetriever

MOST_SEARCHES, TOP_K = 8, 3
LIMITS = EpisodeLimits(max_searches=MOST_SEARCHES, max_context=100_000, top_k=TOP_K)
OUTAGE_S = 600.0


class Words:
    """A tokenizer whose tokens are words with the spaces before them: what is decoded is what was encoded."""

    special_tokens: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._words: list[str] = []

    def encode(self, text: str) -> list[int]:
        return [self._id(word) for word in re.findall(r"\s*\S+|\s+", text)]

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(map(self._words.__getitem__, token_ids))

    def _id(self, word: str) -> int:
        if word not in self._ids:
            self._ids[word] = len(self._words)
            self._words.append(word)
        return self._ids[word]


@dataclass(frozen=True, slots=True)
class Script:
    """One episode: its queries, and the seconds of its turns, of which there is one more."""

    queries: tuple[str, ...]
    seconds: tuple[float, ...]


class ScriptedTurns:
    """A generator that writes the turns of one episode, each after its time."""

    def __init__(self, script: Script, tokenizer: Words) -> None:
        texts = [R1_SEARCHER.write_query("I search.", query) for query in script.queries]
        texts.append(R1_SEARCHER.write_answer("I know.", "yes"))
        self._turns = iter([tuple(tokenizer.encode(text)) for text in texts])
        self._seconds = iter(script.seconds)

    async def generate(self, token_ids: Sequence[int], max_new_tokens: int, stops: Sequence[str]) -> Generation:
        await asyncio.sleep(next(self._seconds))
        return Generation(next(self._turns), FinishReason.STOP)


async def run_scripts(
    scripts: Sequence[Script], retriever: Retriever, notify: Callable[[str], None] = print
) -> list[Trajectory]:
    """The trajectories of all scripts, which run at the same time, with the retries of a training run."""
    tokenizer, waiting = Words(), RetryingRetriever(retriever, OUTAGE_S, notify)
    episodes = []
    for number, script in enumerate(scripts):
        request = EpisodeRequest(question=f"Number {number}?", prompt="?", protocol=R1_SEARCHER, limits=LIMITS)
        episodes.append(run_episode(request, ScriptedTurns(script, tokenizer), waiting, tokenizer))
    return await asyncio.gather(*episodes)


def require_complete(
    scripts: Sequence[Script], trajectories: Sequence[Trajectory], expected: Mapping[str, list[str]]
) -> None:
    """Asserts that nothing is lost: every episode ended with its answer, and has its searches in order, each with the
    ids of the passages that are expected for its query."""
    assert len(trajectories) == len(scripts)
    for script, trajectory in zip(scripts, trajectories, strict=True):
        assert trajectory.stop is StopReason.ANSWERED
        assert tuple(search.query for search in trajectory.searches) == script.queries
        for search in trajectory.searches:
            assert [hit.passage.id for hit in search.hits] == expected[search.query]
