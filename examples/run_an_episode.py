"""Run one episode: a scripted model searches a real index and answers. `python examples/run_an_episode.py`"""

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

from r1searcher.corpora.passage import Passage
from r1searcher.episodes.loop import EpisodeRequest, FinishReason, Generation, run_episode
from r1searcher.episodes.protocols.r1_searcher import R1_SEARCHER
from r1searcher.retrieval import open_retriever
from r1searcher.retrieval.indexing.bm25 import build

PASSAGES = [Passage("1", "Silver Harbor", "Silver Harbor is a film of 1987, directed by Ada Quill.")]
TURNS = [
    " I look for the film. <|begin_of_query|> Silver Harbor director <|end_of_query|>",
    "The passage names her. </think> <answer> Ada Quill </answer>",
]


class CodePoints:
    """A tokenizer with one token per character."""

    special_tokens: tuple[str, ...] = ()

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(map(chr, token_ids))


class Script:
    """A generator that writes the given turns. Training and evaluation run the same loop with a language model."""

    def __init__(self, turns: Sequence[str]) -> None:
        self._turns = iter(turns)

    async def generate(self, token_ids: Sequence[int], max_new_tokens: int, stops: Sequence[str]) -> Generation:
        return Generation(tuple(map(ord, next(self._turns))), FinishReason.STOP)


async def main(folder: Path) -> None:
    build(PASSAGES, folder)
    index = open_retriever(str(folder))
    question, prompt = "Who directed Silver Harbor?", "Question: Who directed Silver Harbor?\n<think>"
    request = EpisodeRequest(question=question, gold_answers=["Ada Quill"], prompt=prompt, protocol=R1_SEARCHER)
    trajectory = await run_episode(request, Script(TURNS), index, CodePoints())
    await index.aclose()
    for segment in trajectory.segments:
        print(f"[{segment.author}] {segment.text.strip()}")
    print(f"{trajectory.stop}; {sum(trajectory.mask)} of {len(trajectory.token_ids)} tokens are trained")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        asyncio.run(main(Path(temporary) / "index"))
