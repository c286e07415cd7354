"""Contract of retrievers, for your own tests:

    async def test_contract() -> None:
        await check_retriever(open_retriever("mine:passages.jsonl"), found="rivers in Foxford")
        await check_outage(open_retriever("mine:passages.jsonl"))     # with its engine switched off

Both close the retriever. They raise `AssertionError` with the rule that was broken.
"""

import asyncio
import math
from collections.abc import Sequence
from contextlib import aclosing

from r1searcher.common.contract import rule
from r1searcher.errors import R1Error
from r1searcher.retrieval.base import (
    MAX_QUERY_CHARS,
    EpisodeContext,
    Health,
    Hit,
    NoLookupError,
    Retriever,
    SearchResult,
    bind,
    passage_of,
)

_ODD = ("", " ", "\n", "\ud800", "a\0b", "<|x|> [bold] \x1b[2J", "word " * MAX_QUERY_CHARS)
"""Queries that a model may write."""

_EPISODE = EpisodeContext(id="q1", question="Which river?", gold_answers=("Moy",), step=1, search=1)


async def check_retriever(retriever: Retriever, found: str, top_k: int = 3) -> None:
    """Raises `AssertionError` for the first rule that a working retriever breaks. `found` is a query that has hits.

    Sends about twenty queries to the retriever.
    """
    async with aclosing(retriever):
        _check_health(await retriever.health())
        searching = bind(retriever, _EPISODE)
        rule(await searching.search([], top_k) == [], "no queries have no results")
        (alone,) = _checked(await searching.search([found], top_k), 1, top_k)
        rule(alone.require_hits(), f"the query {found!r} has hits")
        _check_order(alone.hits)
        (first,) = _checked(await searching.search([found], 1), 1, 1)
        rule(len(first.hits) == 1, "one passage is found if one is requested")

        mixed = [found, *_ODD, found]
        results = _checked(await searching.search(mixed, top_k), len(mixed), top_k)
        rule(results[0].hits and results[-1].hits, "queries of the same call do not disturb each other")
        together = await asyncio.gather(*(searching.search([found], top_k) for _ in range(8)))
        rule(all(_checked(one, 1, top_k)[0].hits for one in together), "searches run at the same time")
        _check_health(await retriever.health())
        await _check_lookup(retriever, alone.hits)
    await retriever.aclose()  # a second time


async def check_outage(retriever: Retriever, query: str = "anything") -> None:
    """Raises `AssertionError` if a retriever whose engine is down answers as if nothing matched."""
    async with aclosing(retriever):
        try:
            results = await bind(retriever, _EPISODE).search([query, query], 1)
        except R1Error:
            pass
        else:
            _checked(results, 2, 1)
            rule(all(result.error is not None for result in results), "an outage is an error, never an empty result")
        try:
            await retriever.health()
        except R1Error:
            return
        rule(False, "health fails if the engine is down")


async def _check_lookup(retriever: Retriever, hits: Sequence[Hit]) -> None:
    try:
        found = [await passage_of(retriever, hit.passage.id) for hit in hits]
        missing = await passage_of(retriever, "no passage has this id")
    except NoLookupError:
        return
    same = [passage is not None and passage.id == hit.passage.id for passage, hit in zip(found, hits, strict=True)]
    rule(all(same), "a passage that was found can be looked up by its id")
    rule(missing is None, "nothing is looked up by an id that no passage has")


def _check_health(health: Health) -> None:
    rule(isinstance(health, Health) and health.name, "health has a name")
    rule(health.passages is None or health.passages >= 0, "health says how many passages there are, or None")


def _checked(results: Sequence[SearchResult], queries: int, top_k: int) -> Sequence[SearchResult]:
    rule(len(results) == queries, f"there is one result per query ({len(results)} for {queries})")
    for result in results:
        rule(isinstance(result, SearchResult), "a result is a SearchResult")
        rule(isinstance(result.hits, tuple) and len(result.hits) <= top_k, f"there are at most {top_k} hits, a tuple")
        for hit in result.hits:
            texts = (hit.passage.id, hit.passage.title, hit.passage.text)
            rule(all(isinstance(text, str) for text in texts), "id, title and text of a passage are strings")
            rule(math.isfinite(hit.score), "scores are finite")
        rule(all(span.seconds >= 0 and span.cost_usd >= 0 for span in result.spans), "spans cost nothing or more")
    return results


def _check_order(hits: Sequence[Hit]) -> None:
    scores = [hit.score for hit in hits]
    rule(scores == sorted(scores, reverse=True), "the best hit comes first")
