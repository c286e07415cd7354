"""The record of one episode: who wrote which tokens, what was searched, why it stopped.

`Segment` is one author's contribution, `Search` one query with what it found, `Trajectory` the whole. Text, token ids
and the loss mask of a trajectory are derived from its segments and are never found by searching text for tags.
"""

from dataclasses import dataclass
from enum import StrEnum
from itertools import chain

from r1searcher.retrieval.base import Hit, Span


class Author(StrEnum):
    """Who wrote a segment. Only what the model wrote is trained and judged."""

    PROMPT = "prompt"
    MODEL = "model"
    ENVIRONMENT = "environment"


class StopReason(StrEnum):
    """Why an episode ended. Each member is also logged as the rate `stop/<value>`."""

    ANSWERED = "answered"
    """The model closed its answer."""

    EOS_WITHOUT_ANSWER = "eos_without_answer"
    """The model ended its text (end-of-sequence token) without an answer."""

    SEARCH_LIMIT = "search_limit"
    """The model asked for one search more than its budget; that search was not run."""

    TURN_TRUNCATED = "turn_truncated"
    """A turn reached its budget of new tokens before a query or an answer was closed."""

    CONTEXT_FULL = "context_full"
    """The context had no space for another turn or for the documents found."""

    MALFORMED_QUERY = "malformed_query"
    """A query was closed that was empty, never opened, or opened more than once; nothing was searched."""

    FORGED_DOCUMENTS = "forged_documents"
    """The model began to write a documents block itself."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of tokens by one author.

    `text` is what `token_ids` decode to, always: also if a stop string ended inside the last token. `overhang` then
    counts the characters of `text` that come after the stop string: they were sampled and are trained, but are not
    part of what the model said. `logprobs` has one entry per token for sampled segments, if the engine gave them.
    """

    author: Author
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None = None
    overhang: int = 0

    @property
    def text_before_stop(self) -> str:
        """The text up to the end of the stop string."""
        return self.text[: len(self.text) - self.overhang]


@dataclass(frozen=True, slots=True)
class Search:
    """One query that was run.

    `hits` is everything the engine returned; `shown` how many of them fit in the context. `seconds` is how long the
    episode waited, `spans` what each link of the retriever spent.
    """

    query: str
    hits: tuple[Hit, ...]
    shown: int
    seconds: float
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One finished episode. The first segment is the prompt; model and environment alternate after it.

    `protocol` is the name of the `EpisodeProtocol` by which the turns are read.
    """

    question: str
    gold_answers: tuple[str, ...]
    segments: tuple[Segment, ...]
    searches: tuple[Search, ...]
    stop: StopReason
    protocol: str

    @property
    def text(self) -> str:
        return "".join(segment.text for segment in self.segments)

    @property
    def token_ids(self) -> tuple[int, ...]:
        return tuple(chain.from_iterable(segment.token_ids for segment in self.segments))

    @property
    def mask(self) -> tuple[bool, ...]:
        """True for exactly the tokens that the model sampled."""
        return tuple(segment.author is Author.MODEL for segment in self.segments for _ in segment.token_ids)

    @property
    def turns(self) -> tuple[str, ...]:
        """What the model said, one string per turn."""
        return tuple(segment.text_before_stop for segment in self.segments if segment.author is Author.MODEL)
