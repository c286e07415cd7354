"""A language model instead of a search engine, as in ZeroSearch (arXiv 2505.04588).

For a query it writes useful or noisy documents; it knows question and gold answers of the episode that searches, and of
no other. The share of noisy searches grows over the steps of a stage:

    p_i = p_start + (b^(i / m) - 1) / (b - 1) * (p_end - p_start)        i: step, m: steps, b: base

Whether a search is noisy depends only on seed, question and the number of the search in its episode, so a resumed run
draws the same. The text of the documents is the model's: record it with a cache to repeat a run exactly.
"""

import asyncio
import copy
import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from r1searcher.common.chat import ChatServer, filled
from r1searcher.common.http import Limits
from r1searcher.common.retry import RetryPolicy
from r1searcher.corpora.passage import make_passage
from r1searcher.errors import InputError, RetrieverError
from r1searcher.retrieval.base import (
    EngineSettings,
    EpisodeContext,
    Health,
    Hit,
    Retriever,
    SearchResult,
    Span,
    clean_query,
)

KEY_VARIABLE = "R1S_SIMULATOR_KEY"
"""Environment variable with the endpoint's key; OPENAI_API_KEY is used if it is not set."""

_UNREADABLE = RetryPolicy(tries=3, first_pause=0.0)
"""For a completion without any document: with another seed the model may write one."""

Kind = Literal["useful", "noisy"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_DOCUMENT = re.compile(r"^\W{0,4}(?:document|doc)\W{0,2}(\d{1,3})\W{0,3}[:.)|-]+\s*(.*)", re.IGNORECASE)
_MAX_DOCUMENT_CHARS = 4000


class Settings(EngineSettings):
    """`simulated:http://host:8000/v1`, an OpenAI-compatible server whose model writes the documents."""

    environment: ClassVar[tuple[str, ...]] = (KEY_VARIABLE, "OPENAI_API_KEY")

    kind: Literal["simulated"] = "simulated"

    model: str = Field(min_length=1)
    """Name of the model at the server."""

    steps: int | None = Field(None, ge=1)
    """Steps over which the share of noisy searches grows: those of the stage (m in the formula)."""

    noise_start: float = Field(0.0, ge=0, le=1)
    """Share of noisy searches before the first step."""

    noise_end: float = Field(0.5, ge=0, le=1)
    """Share of noisy searches in the last step."""

    noise_base: float = Field(4.0, gt=0, le=1e6)
    """Base of the growth: with a larger one, most of the noise comes late; 1 is linear growth."""

    noise_outside_training: float = Field(0.0, ge=0, le=1)
    """Share of noisy searches where there are no steps, as in an evaluation."""

    seed: int = Field(0, ge=0, le=2**63 - 1)
    """Seed of the draws, also sent to the server."""

    max_tokens: int = Field(512, ge=16, le=100_000)
    """Maximum tokens of the documents of one search."""

    temperature: float = Field(0.8, ge=0, le=10)
    """Sampling temperature of the documents."""

    timeout_s: float = Field(120.0, gt=0, le=86_400)
    """Time limit of one request, in seconds."""

    connections: int = Field(32, ge=1, le=10_000)
    """Maximum concurrent requests; further searches wait."""

    @model_validator(mode="after")
    def _growth_has_steps(self) -> Self:
        if self.steps is None and self.noise_start != self.noise_end:
            raise ValueError("set `steps` to those of the stage (rl.steps), or `noise_start` and `noise_end` alike")
        return self

    @property
    def needs_episode(self) -> bool:
        return True

    @property
    def server(self) -> str:
        return self.url.removeprefix(f"{self.kind}:")

    def open(self) -> Retriever:
        return SimulatedEngine(self)


@cache
def templates() -> Mapping[Kind, str]:
    """The texts of the prompts, with placeholders."""
    folder = resources.files("r1searcher.retrieval.engines") / "prompts"
    return {kind: (folder / f"{kind}.txt").read_text("utf-8").strip() for kind in KINDS}


def prompt_of(kind: Kind, question: str, gold_answers: Sequence[str], query: str, documents: int) -> str:
    """What the model is asked for a query of an episode with this question."""
    values = {
        "documents": str(documents),
        "question": question,
        "gold_answers": "; ".join(gold_answers),
        "query": " ".join(query.split()),
    }
    return filled(templates()[kind], values)


def completion_of(documents: Sequence[tuple[str, str]]) -> str:
    """The completion from which `documents_in` reads these (title, text) pairs; it is empty if there are none."""
    lines: list[str] = []
    for title, text in documents:
        head, body = (" ".join(part.split()) for part in (title.replace("|", " "), text))
        lines.append(f"Document {len(lines) + 1}: {head} | {body}")
    return "\n".join(lines)


def noise(settings: Settings, step: int | None) -> float:
    """The share of noisy searches in a step, from 1; after the last step it stays that of the last one."""
    if step is None:
        return settings.noise_outside_training
    if settings.steps is None:
        return settings.noise_start
    done = min(step, settings.steps) / settings.steps
    base = settings.noise_base
    grown = done if base == 1 else (base**done - 1) / (base - 1)
    return settings.noise_start + grown * (settings.noise_end - settings.noise_start)


def is_noisy(settings: Settings, episode: EpisodeContext) -> bool:
    """The draw of a search: the same for the same seed, question and number of the search."""
    return _draw(settings.seed, episode) < noise(settings, episode.step)


def _draw(seed: int, episode: EpisodeContext) -> float:
    """A number from 0 to 1, evenly distributed over seeds, questions and searches."""
    return _hash(seed, episode.id, episode.question, episode.search) / 2**64


def _hash(*parts: Any) -> int:
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:8])


class SimulatedEngine:
    """The engine; searches need `for_episode`."""

    def __init__(self, settings: Settings, episode: EpisodeContext | None = None) -> None:
        self._settings = settings
        self._episode = episode
        self._server = ChatServer(
            settings.server,
            settings.model,
            what="the simulated search engine",
            variables=(KEY_VARIABLE, "OPENAI_API_KEY"),
            limits=Limits(settings.timeout_s, size=4 << 20, connections=settings.connections),
            error=RetrieverError,
        )

    def for_episode(self, episode: EpisodeContext) -> "SimulatedEngine":
        bound = copy.copy(self)
        bound._episode = episode
        return bound

    async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
        if not queries or top_k < 1:
            return [SearchResult() for _ in queries]
        if self._episode is None:
            raise InputError("A simulated search engine answers only searches of episodes: it needs their question")
        return list(await asyncio.gather(*(self._search(self._episode, query, top_k) for query in queries)))

    async def health(self) -> Health:
        """Also raises `RetrieverError` if the server cannot be reached."""
        await self._server.models()
        own = self._settings.model_dump(mode="json", exclude={"url", "timeout_s", "connections"})
        name = f"{self._settings.model} at {self._server.client.shown}"
        return Health(name, None, hashlib.sha256(json.dumps([own, templates()], sort_keys=True).encode()).hexdigest())

    async def aclose(self) -> None:
        await self._server.aclose()

    async def _search(self, episode: EpisodeContext, query: str, top_k: int) -> SearchResult:
        text = clean_query(query)
        if not text.strip():
            return SearchResult()
        kind: Kind = "noisy" if is_noisy(self._settings, episode) else "useful"
        prompt = prompt_of(kind, episode.question, episode.gold_answers, text, top_k)
        tries = 0

        async def attempt() -> tuple[Hit, ...]:
            nonlocal tries
            tries += 1
            seed = _hash(self._settings.seed, episode.id, episode.question, episode.search, text, tries) >> 33
            said = await self._server.ask(
                prompt, str, seed=seed, max_tokens=self._settings.max_tokens, temperature=self._settings.temperature
            )
            hits = documents_in(said, top_k)
            if not hits:
                where = self._server.client.what
                raise RetrieverError(f"{where} wrote no document for {text[:80]!r}", transient=True)
            return hits

        started = time.perf_counter()
        try:
            hits = await _UNREADABLE.acall(attempt)
        except RetrieverError as error:
            return SearchResult(error=error)
        p = noise(self._settings, episode.step)
        span = Span(f"simulated, {kind} (noise {p:.4f})", time.perf_counter() - started)
        return SearchResult(hits, spans=(span,))


def documents_in(said: str, top_k: int) -> tuple[Hit, ...]:
    """The documents of a completion, at most `top_k`. Their ids are hashes of their text; scores are 1/rank.

    A completion without a numbered line is one document: small models often leave the numbers out. What follows a
    document on lines without a number belongs to it.
    """
    parts: list[list[str]] = []
    for line in said.splitlines():
        match = _DOCUMENT.match(line.strip())
        if match:
            parts.append([match[2]])
        elif parts and line.strip():
            parts[-1].append(line.strip())
    texts = [" ".join(part) for part in parts] or [" ".join(said.split())]
    hits: list[Hit] = []
    for text in texts:
        title, bar, body = text[:_MAX_DOCUMENT_CHARS].partition("|")
        if not bar:
            title, body = "", title
        title = title.strip(" \t\"'*#")
        if body.strip() and len(hits) < top_k:
            id_ = f"simulated-{hashlib.sha256(f'{title}|{body}'.encode('utf-8', 'replace')).hexdigest()[:16]}"
            try:
                hits.append(Hit(make_passage(id_, title, body), 1 / (len(hits) + 1)))
            except ValueError:  # half a character
                continue
    return tuple(hits)
