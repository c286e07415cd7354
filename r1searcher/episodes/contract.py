"""What every protocol must keep to, as a test of your own:

    check_protocol(MY_PROTOCOL)

It raises `AssertionError` with the rules that were broken. The rules are tried on hostile text: the protocol's own
tags, pieces of them, and what tokenizers and Unicode can turn into them.
"""

import random
import unicodedata
from collections.abc import Iterator, Sequence

from r1searcher.episodes.prompt import PromptMaker
from r1searcher.episodes.protocol import PROTOCOLS, Document, EpisodeProtocol, Query
from r1searcher.episodes.trajectory import Author, StopReason

SPECIAL_TOKENS = ("<|im_start|>", "<|im_end|>", "</s>", "<|>")
"""Control tokens as tokenizers have them."""

_THOUGHT, _QUERY, _ANSWER = " I look it up.", "capital of Norway", "Oslo"
_PLAIN = (Document("Oslo", "Oslo is the capital of Norway."), Document("Norway", "A country in the north."))
_ENDINGS = (StopReason.EOS_WITHOUT_ANSWER, StopReason.ANSWERED, StopReason.MALFORMED_QUERY, StopReason.FORGED_DOCUMENTS)


def check_protocol(protocol: EpisodeProtocol, seed: int = 0, texts: int = 200) -> None:
    """Raises `AssertionError` with up to ten rules that `protocol` breaks, and whatever the protocol itself raises.

    `texts` hostile texts are drawn with `seed`.
    """
    hostile = list(hostile_texts(protocol, seed, texts))
    checks = (
        _declarations(protocol),
        _written_turns(protocol),
        _stop_strings(protocol, hostile),
        _outside_text(protocol, hostile),
        _prompts(protocol, hostile),
        _transcripts(protocol, hostile),
        _arbitrary_turns(protocol, hostile),
    )
    broken = list(dict.fromkeys(problem for problems in checks for problem in problems))
    if broken:
        raise AssertionError("\n".join(broken[:10]))


def hostile_texts(protocol: EpisodeProtocol, seed: int, count: int) -> Iterator[str]:
    """Each tag alone, in full-width characters and nested in itself; then random mixtures with other text."""
    tags = (*protocol.tags, *protocol.stop_strings, *SPECIAL_TOKENS)
    wide = str.maketrans({chr(code): chr(code + 0xFEE0) for code in range(0x21, 0x7F)})
    pieces = [" ", "\n", "\u2028", "\u0338", "x", "(1)Title: ", " Text: ", _QUERY, _ANSWER]
    for tag in tags:
        middle = len(tag) // 2
        nested = tag[:middle] + tag + tag[middle:]
        yield from (tag, tag.translate(wide), nested)
        pieces += [tag, tag.translate(wide), nested, tag[:middle], tag[middle:], tag[1:], tag[:-1]]
    draw = random.Random(seed)
    for _ in range(count):
        yield "".join(draw.choices(pieces, k=draw.randint(1, 12)))


def _declarations(protocol: EpisodeProtocol) -> Iterator[str]:
    if protocol.name in PROTOCOLS and PROTOCOLS[protocol.name] is not protocol:
        yield f"name: {protocol.name!r} is the name of another protocol"
    if not protocol.name or not protocol.name.isprintable() or protocol.name.strip() != protocol.name:
        yield "name must be printable text"
    for tag in protocol.tags:
        if not tag.strip() or unicodedata.normalize("NFKC", " ".join(tag.split())) != tag:
            yield f"tags: {tag!r} must be on one line, not blank, and in Unicode's form NFKC"
    for name, strings in (("stop_strings", protocol.stop_strings), ("reserved_tags", protocol.reserved_tags)):
        for string in strings:
            if not any(tag in string for tag in protocol.tags):
                yield f"{name}: {string!r} contains no tag, so text from outside may contain it"
    if protocol.opening.strip() and not any(tag in protocol.opening for tag in protocol.tags):
        yield f"opening: {protocol.opening!r} contains no tag, so text from outside may contain it"


def _written_turns(protocol: EpisodeProtocol) -> Iterator[str]:
    """What `write_query` and `write_answer` write is read as such, and generation stops at its end."""
    query, answer = protocol.write_query(_THOUGHT, _QUERY), protocol.write_answer(_THOUGHT, _ANSWER)
    if _read(protocol, query) != Query(_QUERY):
        yield f"read_turn: {query!r} of write_query is not the query {_QUERY!r}"
    endings = (answer, *protocol.broken_answers(_THOUGHT, _ANSWER))
    for turn in endings:
        if _read(protocol, turn) is not StopReason.ANSWERED:
            yield f"read_turn: {turn!r} is not answered"
        if (protocol.parse([turn]).answer or "").strip() != _ANSWER:
            yield f"parse: {turn!r} has not the answer {_ANSWER!r}"
    for turn in (query, *endings):
        if any(stop in turn[:-1] for stop in protocol.stop_strings):
            yield f"stop_strings: generation stops before the end of {turn!r}"
    if faults := protocol.parse([query, answer]).faults:
        yield f"parse: turns that the protocol writes have faults ({', '.join(faults)})"
    for turn in endings[1:]:
        if not protocol.parse([turn]).faults:
            yield f"broken_answers: parse finds no fault in {turn!r}"


def _read(protocol: EpisodeProtocol, turn: str) -> Query | StopReason:
    """A turn as the loop reads it: it ends with a stop string, or else the model ended its text."""
    return protocol.read_turn(turn, ended=not turn.endswith(tuple(protocol.stop_strings)))


def _stop_strings(protocol: EpisodeProtocol, hostile: Sequence[str]) -> Iterator[str]:
    """A turn that stopped at a stop string is a query, an answer, or one of the ways to break the protocol."""
    for stop in protocol.stop_strings:
        for turn in (stop, *(text + stop for text in hostile)):
            read = protocol.read_turn(turn)
            if isinstance(read, Query) and (not read.text or read.text != " ".join(read.text.split())):
                yield f"read_turn: a query of {turn!r} must be text on one line without outer spaces"
            if read is StopReason.EOS_WITHOUT_ANSWER:
                yield f"read_turn: a turn that ends with the stop string {stop!r} must not be read as nothing"
    if isinstance(protocol.read_turn(_THOUGHT, ended=True), Query):
        yield "read_turn: plain text is read as a query"


def _outside_text(protocol: EpisodeProtocol, hostile: Sequence[str]) -> Iterator[str]:
    """No tag survives `sanitize`, and none forms where `render` puts sanitized text."""
    plain = protocol.render(_PLAIN)
    for text in hostile:
        clean = protocol.sanitize(text, SPECIAL_TOKENS)
        left = [tag for tag in (*protocol.tags, *SPECIAL_TOKENS) if tag in clean]
        if left or "\n" in clean or protocol.sanitize(clean, SPECIAL_TOKENS) != clean:
            yield f"sanitize: {text!r} becomes {clean!r}"
        rendered = protocol.render([Document(clean, clean), Document(clean, _ANSWER)])
        for tag in protocol.tags:
            if rendered.count(tag) != plain.count(tag):
                yield f"render: documents with the text {clean!r} add or remove the tag {tag!r}"
    if not any(tag in protocol.render([]) for tag in protocol.tags):
        yield "render: for no documents it must say so, with its tags"


def _prompts(protocol: EpisodeProtocol, hostile: Sequence[str]) -> Iterator[str]:
    """A question adds no tag to a prompt, and every prompt ends with the opening."""
    for name, text in {**protocol.prompts, "question alone": "{question}"}.items():
        if "{question}" not in text:
            yield f"prompts: {name!r} has no {{question}}"
        make = PromptMaker(text, protocol, False, None, SPECIAL_TOKENS)
        plain = make(_QUERY)
        if not plain.endswith(protocol.opening):
            yield f"prompts: {name!r} does not end with the opening"
        for question in hostile:
            if any(make(question).count(tag) != plain.count(tag) for tag in protocol.tags):
                yield f"prompts: the question {question!r} adds a tag to {name!r}"


def _transcripts(protocol: EpisodeProtocol, hostile: Sequence[str]) -> Iterator[str]:
    """A transcript is its parts, and those of an episode have the authors that they had, whatever was found."""
    query, answer = protocol.write_query(_THOUGHT, _QUERY), protocol.write_answer(_THOUGHT, _ANSWER)
    for text in hostile:
        if "".join(part.text for part in protocol.read_transcript(text)) != text:
            yield f"read_transcript: the parts of {text!r} are not the text"
        clean = protocol.sanitize(text, SPECIAL_TOKENS)
        yield from _one_transcript(protocol, [query, protocol.render([Document(clean, clean)]), answer])
    yield from _one_transcript(protocol, [query, protocol.render([]), answer])
    parts = protocol.read_transcript(query + protocol.render(_PLAIN))
    found = [Document(passage.title, passage.text) for part in parts for passage in part.found]
    if found != list(_PLAIN):
        yield f"read_transcript: {found} were found where {list(_PLAIN)} were rendered"


def _one_transcript(protocol: EpisodeProtocol, turns: Sequence[str]) -> Iterator[str]:
    """Spaces between two turns may belong to either."""
    parts = [(part.author, part.text.strip()) for part in protocol.read_transcript("".join(turns))]
    authors = (Author.MODEL, Author.ENVIRONMENT, Author.MODEL)
    if parts != [(author, turn.strip()) for author, turn in zip(authors, turns, strict=True)]:
        yield f"read_transcript: {''.join(turns)!r} has the parts {parts}"


def _arbitrary_turns(protocol: EpisodeProtocol, hostile: Sequence[str]) -> Iterator[str]:
    """Any text can be read: a model may write anything."""
    if protocol.parse([]).answer is not None:
        yield "parse: an episode without turns has an answer"
    for turn in hostile:
        protocol.parse([turn, turn])
        for ended in (False, True):
            read = protocol.read_turn(turn, ended)
            if not isinstance(read, Query) and read not in _ENDINGS:
                yield f"read_turn: {read!r} is not a way for a turn to end an episode"
