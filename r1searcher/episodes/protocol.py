"""How a model and its environment communicate: tags, turns and prompts. One object per protocol, found by name.

The loop, format rules, prompts, traces and the reading of transcripts take all of it from the episode's protocol.
Another package adds one with an entry point of the group `r1searcher.protocols` that names an `EpisodeProtocol` object;
`check_protocol` of `r1searcher.episodes.contract` tests one.
"""

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

from r1searcher.common.registry import Registry
from r1searcher.corpora.passage import Passage
from r1searcher.episodes.trajectory import Author, StopReason


class Document(NamedTuple):
    """A passage as it is shown to the model: both texts are sanitized, on one line, and cut."""

    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Query:
    """A search that a turn requests."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedTurns:
    """What the model wrote in an episode, as its protocol reads it: what only the protocol can know.

    Format rules judge it. The defaults are those of turns that follow the protocol.
    """

    answer: str | None
    """Raw text of the last turn's answer, with its outer spaces; None if none was completed."""

    answer_out_of_place: bool = False
    """The answer is not where it belongs, after the thinking."""

    thinking_not_closed: bool = False
    thinking_closed_twice: bool = False
    several_answers: bool = False

    text_around_answer: bool = False
    """The conclusion holds more than the answer."""

    misplaced_tag: bool = False
    malformed_query: bool = False

    forged_documents: bool = False
    """The model wrote what only the environment may write."""

    @property
    def faults(self) -> tuple[str, ...]:
        """Names of the fields that are set, that is, what is wrong."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name) is True)


@dataclass(frozen=True, slots=True)
class TranscriptPart:
    """A part of a transcript by one author: the model or the environment. `found` is what the environment showed."""

    author: Author
    text: str
    found: tuple[Passage, ...] = ()


class EpisodeProtocol(ABC):
    """One protocol. It holds no state: one object serves all episodes at once.

    Text from outside (questions, passages) reaches a prompt or `render` only through `sanitize`, and who wrote a token
    is recorded, never found by looking for tags. So a protocol does not need its own protection against hostile text,
    as long as `tags` contains every string that it looks for.
    """

    name: str
    """The name in `episode.protocol`, in trajectories and of the entry point."""

    tags: tuple[str, ...]
    """Every string with a meaning: untrusted text may not contain any. In Unicode's form NFKC."""

    scored_tags: tuple[str, ...] = ()
    """Strings that only scorers of transcripts look for: untrusted text may not contain any of these either."""

    stop_strings: tuple[str, ...]
    """Generation stops after each of these."""

    opening: str = ""
    """What every prompt ends with: the tag that opens the thinking, for example. Empty for none."""

    @property
    def prompts(self) -> Mapping[str, str]:
        """Prompt texts that explain the protocol, by the name in `model.prompt`; each contains {question}."""
        return {}

    @property
    def reserved_tags(self) -> tuple[str, ...]:
        """The tags that get a token each from a vocabulary's unused ones (`model.reserved_tokens`)."""
        return tuple(self.tags)

    @abstractmethod
    def read_turn(self, text: str, ended: bool = False) -> Query | StopReason:
        """What a turn requests: a search, or the end of the episode with its reason.

        `text` ends with a stop string, or where the model ended its text itself (`ended`).
        """

    @abstractmethod
    def parse(self, turns: Sequence[str]) -> ParsedTurns:
        """All turns of an episode, for its answer and its format. `turns` may be empty, and hold anything."""

    def raw_answer(self, turns: Sequence[str]) -> str | None:
        """The answer of `parse` alone; a protocol that finds it without the rest overrides this."""
        return self.parse(turns).answer

    @abstractmethod
    def render(self, documents: Sequence[Document]) -> str:
        """The environment's turn that shows what a search found; for no documents, that nothing was found."""

    @abstractmethod
    def read_transcript(self, text: str) -> list[TranscriptPart]:
        """The parts of a text without recorded authors, starting after the prompt; together they are the text."""

    @abstractmethod
    def write_query(self, thought: str, query: str) -> str:
        """A turn that thinks and then asks for a search, for traces."""

    @abstractmethod
    def write_answer(self, thought: str, answer: str) -> str:
        """A turn that thinks and then answers, for traces."""

    def broken_answers(self, thought: str, answer: str) -> tuple[str, ...]:
        """Turns with an answer that end like any other but break the format, for deliberately weak traces."""
        return ()

    def sanitize(self, text: str, special_tokens: Iterable[str] = ()) -> str:
        """Untrusted text on one line, without tags of the protocol, `scored_tags` and the tokenizer's `special_tokens`.

        A tag keeps its name and loses its brackets: "<end>" becomes "(end)". Compatibility forms (full-width brackets,
        say) count as the plain ones, because some tokenizers fold them.
        """
        line = " ".join(text.split())
        reserved = (*self.tags, *self.scored_tags, *special_tokens)
        folded = " ".join(unicodedata.normalize("NFKC", line).split())  # folding may create new spaces
        if any(tag in folded for tag in reserved):
            line = folded
        found = False
        for tag in reserved:
            if tag in line:
                found = True
                inner = tag.strip("<|>[]")
                line = " ".join(line.replace(tag, f"({inner})" if inner else " ").split())
        # A tag without brackets is still there, and a replacement may complete another. Each round removes characters.
        while found and (left := [tag for tag in reserved if tag in line]):
            for tag in left:
                line = line.replace(tag, " ")
            line = " ".join(line.split())
        return line


PROTOCOLS: Registry[EpisodeProtocol] = Registry(
    "protocol",
    "r1searcher.protocols",
    {"r1-searcher": "r1searcher.episodes.protocols.r1_searcher:R1_SEARCHER"},
    EpisodeProtocol,
    named=True,
)
