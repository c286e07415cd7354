"""Plain technical American English: wordings that are nearly always wrong in code, comments, messages, help and docs.

What patterns cannot find (idioms, metaphors, sentences that read as if translated) is left to review.
"""

import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

_COUNTED = (
    "bytes|entry|episodes|GB|hits|MB|ms|passages|prompts|questions|rows?|samples|searches|seconds|steps?|tokens|"
    "trajectories|turns|updates|words"
)
_UNIT = (
    "answer|batch|block|call|client|command|connection|core|document|entry|episode|file|group|hit|kind|layer|line|"
    "machine|measure|message|minute|node|page|paper|part|passage|process|prompt|query|question|request|row|run|sample|"
    "second|segment|server|shard|stage|step|thread|token|trace|trajectory|try|turn|update|worker"
)
_THING = "answer|corpus|dataset|file|folder|format|index|list|name|number|object|option|passage|run|text|URL"
_AMERICAN_IZE = (
    "author|categor|custom|emphas|equal|final|general|initial|local|maxim|minim|neutral|normal|optim|organ|penal|"
    "random|real|recogn|serial|special|summar|synchron|token|util|vector|visual"
)

PATTERNS = {
    rf"\b(?:{_COUNTED}) an? (?:{_UNIT})\b|\b(?:queries|requests) a (?:client|minute|second)\b": "per",
    r"\bbehind\b": "after",
    rf"\b\w+(?<!there) (?:is|are|was|were) no (?:\w+ )?(?:{_THING})s?\b": "is not a",
    r"\bso many\b": "N, this many",
    r"\b(?:anew|henceforth|hitherto|naught|nought|thereby|therein|thereof|thereupon)\b": "again, nothing, so",
    r"\b(?:lest|whence|whereby|wherein|whereupon|whilst|amongst|upon)\b": "so that … not, in which, while, among, on",
    r"\bmend(?:s|ed|ing)?\b": "fix",
    r"\bblanks\b|\b(?:a|each|one|outer|single|the|without) blank\b(?! (?:file|line))": "space",
    r"\b(?:hasn't|haven't|hadn't) (?:an?|any|the)\b|\b(?:has|have) not an?\b": "does not have",
    r"\b(?:goes|going|went|gone) on\b|\bto go on\b": "continue",
    r"\bgolds\b|\b(?:a|best|each|every|one|the) gold\b(?! answers?\b)": "gold answer",
    r"\b(?:whoever|whosoever|whomever)\b": "any client, the user who, the process that",
    r"\bas (?:it|they) stands?\b": "unchanged",
    r"\bstands? (?:at|before|beside|between|for|in|there)\b|\bstood\b": "is, occurs, means",
    r"\btold (?:apart|from)\b|\btell(?:s|ing)? (?:\w+ )?apart\b": "distinguished",
    r"\bl(?:ie|ies|ay|ying)\b": "is",
    r"\bbesides?\b": "next to, in addition to",
    r"\b(?:be|been|being|is|are|was|were) taken for\b": "treated as",
    r"\bunder way\b": "in progress, current",
    r"\b(?:doors?|houses?|rooms)\b": "package, entry point",
    r"\bplay(?:s|ed|ing)? (?:an?|all|the|every|episodes?|questions?)\b": "run, evaluate",
    r"\bdata sets?\b": "dataset",
    r"\b(?:by|take|takes|taking) turns\b": "alternate",
    r"\bby hand\b": "manually",
    r"\bfor ever\b": "forever",
    r"\btime-outs?\b": "timeout",
    r"\bneeds? no\b": "does not need",
    r"\b(?:take|takes|taken|took|taking) up\b": "resume",
    r"\b(?:learnt|spelt|burnt|dreamt)\b": "learned, spelled, burned",
    r"\b(?:towards|afterwards)\b": "toward, afterward",
    r"(?<![a-z])\w*(?:behaviour|colour|favour|flavour|honour|neighbour)": "-or",
    rf"(?<![a-z])(?:un|re|de)?(?:{_AMERICAN_IZE})is(?:e|ed|er|es|ing|ation)(?![a-z])": "-ize",
    r"\b(?:analyse[ds]?|analysing|artefacts?|catalogues?|centres?|grey|judgements?|licences?)\b": "American spelling",
    r"\b(?:cancell|labell|modell|signall|travell)(?:ed|ing)\b": "one l",
}
COMPILED = [(re.compile(p.replace(" ", r"\s+(?:#\s+)?"), re.IGNORECASE), instead) for p, instead in PATTERNS.items()]

CHECKED = (
    "README.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "Makefile", "pyproject.toml",
    "zensical.toml", "docker-compose.yml", ".pre-commit-config.yaml", ".ci", ".github", "benchmarks", "docker", "docs",
    "examples", "r1searcher", "requirements", "scripts", "tests",
)  # fmt: skip
SKIPPED = re.compile(r"^tests/data/.*(?<!\.md)$|^tests/test_language\.py$|\.png$")
UNFINISHED: tuple[str, ...] = ()
"""Files and folders that are not checked yet. This list only gets shorter."""
DATA_IN_STRINGS = ("tests/", "benchmarks/", "r1searcher/demo/atlas.py")
"""Here strings are mostly data (passages, model output, other programs): only comments and docstrings are prose."""

EXCEPTIONS: dict[tuple[str, str], str] = {}
"""(file, wording) that is right there -> why."""


def without_strings(source: str) -> str:
    """Python source with spaces for strings that are not docstrings. Lines keep their numbers.

    >>> without_strings('x = "behind"  # a comment')
    'x =           # a comment'
    """
    lines = source.splitlines(keepends=True)
    parts = (tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING))
    statement = True
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in parts and not statement:
            for number in range(token.start[0] - 1, token.end[0]):
                line = lines[number]
                start = token.start[1] if number == token.start[0] - 1 else 0
                end = token.end[1] if number == token.end[0] - 1 else len(line.rstrip("\n"))
                lines[number] = line[:start] + " " * (end - start) + line[end:]
        if token.type not in (tokenize.COMMENT, tokenize.NL):
            statement = token.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    return "".join(lines)


def problems(text: str) -> Iterator[tuple[int, str, str]]:
    """Line number, wording, and what to write instead."""
    for pattern, instead in COMPILED:
        for match in pattern.finditer(text):
            yield text.count("\n", 0, match.start()) + 1, " ".join(match[0].split()), instead


def checked_files() -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *CHECKED]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return sorted(
        name
        for name in listed
        if not SKIPPED.search(name) and not name.startswith(UNFINISHED) and (ROOT / name).is_file()
    )


def prose(name: str) -> str:
    text = (ROOT / name).read_text(encoding="utf-8")
    return without_strings(text) if name.endswith(".py") and name.startswith(DATA_IN_STRINGS) else text


def test_strings_of_data_are_not_prose_but_docstrings_and_comments_are() -> None:
    source = '"""a"""\nx = "b", {\n    "c": f"d {x} e",\n}  # f\ndef g():\n    # h\n    """i\n    j"""\n'
    kept = without_strings(source)
    assert " ".join(kept.split()) == '"""a""" x = , { : , } # f def g(): # h """i j"""'
    assert kept.count("\n") == source.count("\n")


def test_patterns_find_what_they_are_for() -> None:
    text = "a row a step; it stands in the\n# folder behind its data set, so many rows, normalised, lest it lie beside"
    assert sorted((line, wording) for line, wording, _ in problems(text)) == [
        (1, "row a step"),
        (1, "stands in"),
        *((2, wording) for wording in ("behind", "beside", "data set", "lest", "lie", "normalised", "so many")),
    ]


@pytest.mark.parametrize("name", checked_files())
def test_text_is_plain_american_english(name: str) -> None:
    found = [
        f"{name}:{line}: {wording!r}: write {instead}"
        for line, wording, instead in problems(prose(name))
        if (name, wording.lower()) not in EXCEPTIONS
    ]
    assert not found, "\n".join(found)


def test_exceptions_are_needed() -> None:
    for name, wording in EXCEPTIONS:
        assert wording in [found.lower() for _, found, _ in problems(prose(name))], (name, wording)
