"""A generator that writes given turns token by token and stops as vLLM does, and a retriever over given passages.

The model is the one part of an episode that a test must choose freely; everything else is the real thing.
"""

from collections.abc import Sequence

from r1searcher.corpora.passage import Passage
from r1searcher.episodes.loop import FinishReason, Generation
from r1searcher.episodes.tokens import Tokenizer
from r1searcher.retrieval.base import Health, Hit, SearchResult


class ScriptedModel:
    """Samples the tokens of `turns` in order, then its end-of-sequence token."""

    def __init__(self, tokenizer: Tokenizer, turns: Sequence[str], end: int) -> None:
        self.tokenizer, self.turns, self.end = tokenizer, list(turns), end
        self.contexts: list[list[int]] = []
        self.sampled: list[tuple[int, ...]] = []

    async def generate(self, token_ids: Sequence[int], max_new_tokens: int, stops: Sequence[str]) -> Generation:
        assert max_new_tokens >= 1
        self.contexts.append(list(token_ids))
        planned = self.tokenizer.encode(self.turns.pop(0)) if self.turns else []
        written: list[int] = []
        finish = FinishReason.LENGTH
        for token in [*planned, self.end]:
            written.append(token)
            if any(stop in self.tokenizer.decode(written) for stop in stops):
                finish = FinishReason.STOP
                break
            if token == self.end:
                finish = FinishReason.EOS
                break
            if len(written) == max_new_tokens:
                break
        self.sampled.append(tuple(written))
        return Generation(tuple(written), finish, tuple(-0.5 - i for i in range(len(written))))


class GivenPassages:
    """Finds the same passages for every query."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.hits = [Hit(Passage(str(i), f"Title {i}", text), 1.0 - i / 10) for i, text in enumerate(texts)]
        self.queries: list[str] = []

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        self.queries += queries
        return [SearchResult(tuple(self.hits[:top_k])) for _ in queries]

    async def health(self) -> Health:
        return Health("given passages", len(self.hits))

    async def aclose(self) -> None: ...
