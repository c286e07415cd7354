"""A search engine whose rankings the test writes down."""

from collections.abc import Mapping, Sequence

from r1searcher.corpora.passage import Passage
from r1searcher.errors import RetrieverError
from r1searcher.retrieval.base import EpisodeContext, Health, Hit, SearchResult


class Scripted:
    """Rankings by query: (id, score) pairs, best first, or an error. It counts its calls."""

    def __init__(self, rankings: Mapping[str, Sequence[tuple[str, float]] | RetrieverError], name: str = "x") -> None:
        self.rankings = rankings
        self.name = name
        self.asked: list[list[str]] = []
        self.closed = 0

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        self.asked.append(list(queries))
        return [self._result(self.rankings.get(query, ()), top_k) for query in queries]

    def _result(self, ranking: Sequence[tuple[str, float]] | RetrieverError, top_k: int) -> SearchResult:
        if isinstance(ranking, RetrieverError):
            return SearchResult(error=ranking)
        return SearchResult(tuple(Hit(passage(id_), score) for id_, score in ranking[:top_k]))

    async def health(self) -> Health:
        return Health(self.name, 10, f"fingerprint of {self.name}")

    async def aclose(self) -> None:
        self.closed += 1


def passage(id_: str) -> Passage:
    return Passage(id_, f"Title {id_}", f"text of {id_}")


class Bound(Scripted):
    """An engine that answers with the gold answer of its own episode."""

    def for_episode(self, episode: EpisodeContext) -> "Bound":
        bound = Bound({}, self.name)
        bound.asked = self.asked
        bound.answer = f"{episode.gold_answers[0]}-{episode.search}"
        return bound

    answer = ""

    def _result(self, ranking: object, top_k: int) -> SearchResult:
        return SearchResult((Hit(passage(self.answer), 1.0),))
