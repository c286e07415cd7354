"""Which format a file is in, by its first bytes; and what a well-known file is that holds no passages.

A JSON file is told by the keys of its first object, which are read without parsing: a page may be longer than what was
looked at.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from r1searcher.corpora.formats import FORMATS, ID_KEYS, PARAGRAPHS

_QUESTION_KEYS = {"question", "query", "question_text", "golden_answers", "reward_model"}
_INSTEAD = "index the corpus that they were made from, such as wiki-18 or hotpotqa-abstracts"
_QUESTIONS = f"holds questions and not passages: give it as a dataset (data.train, --dataset), and {_INSTEAD}"
_DPR = "is DPR's training data, which holds single passages per question: index DPR's psgs_w100.tsv instead"
_SQUAD = "is SQuAD's questions with their contexts: write each paragraph as a row of id, title, text"
_NQ = "is Natural Questions' original release of whole pages: index wiki-18 instead"
_QRELS = "holds relevance judgments (qrels) and not passages: index corpus.jsonl of the same dataset"
_QUERIES = "holds BEIR's queries and not passages: index corpus.jsonl of the same dataset"

_PACKED: Mapping[bytes, str] = {
    b"PK\x03\x04": "is a ZIP archive: unpack it, and give the folder",
    b"\xfd7zXZ\x00": "is compressed with xz: unpack it, or compress it with gzip, bzip2 or zstd",
    b"7z\xbc\xaf\x27\x1c": "is a 7z archive: unpack it, and give the folder",
    b"ARROW1": "is an Arrow file: save the dataset as Parquet or JSON lines",
    b"%PDF": "is a PDF: write its text as rows of id, title, text",
    b"\x93NUMPY": "holds NumPy arrays and not passages",
    b"SQLite format 3\x00": "is an SQLite database: write its text as rows of id, title, text",
    b"<mediawiki": "is a dump of a wiki: extract its text first, or index wiki-18 or kilt-100w",
}


class UnusableShapeError(ValueError):
    """A file of no corpus format. The message goes on after the file's name, and says what would work."""


def detect_format(start: bytes, name: str = "") -> str:
    """The format of a file by its first bytes (64 KiB, or all of a shorter file) and, for BEIR's queries, its name.

    Raises `UnusableShapeError` for anything else.

    >>> detect_format(b'{"id": 1, "contents": "Oslo"}')
    'jsonl'
    """
    if start.startswith(b"PAR1"):
        return "parquet"
    for magic, problem in _PACKED.items():
        if start.startswith(magic):
            raise UnusableShapeError(problem)
    text = start.decode("utf-8", "replace").removeprefix("\ufeff").lstrip()
    lines = [line for line in text.split("\n", 20)[:20] if line.strip()]
    if text.startswith("["):
        return _by_keys(_keys(text), text, name, "hipporag")
    for line in lines:
        if line.startswith("{"):
            return _by_keys(_keys(text[text.index(line) :]), text, name, "jsonl")
    if lines:
        return _by_lines(lines)
    raise UnusableShapeError("holds nothing but white space")


def check_columns(schema: Any) -> bool:
    """Whether the columns of a Parquet file (an Arrow schema) are questions that carry their paragraphs.

    Raises `UnusableShapeError` where they make no passages at all.
    """
    kinds = {field.name: str(field.type) for field in schema}
    marks = {name: '"' if "string" in kind or "binary" in kind else kind[:1] for name, kind in kinds.items()}
    nested = any("sentences" in kinds.get(name, "") for name in ("context", "metadata"))
    if nested or "list" in kinds.get("paragraphs", ""):
        return True
    if not set(marks) & {"text", "contents"} or _QUESTION_KEYS & set(marks):
        if problem := _problem(marks, "", ""):
            raise UnusableShapeError(problem)
        columns = ", ".join(kinds)[:200]
        raise UnusableShapeError(f"has the columns {columns}: id, title, text or id, contents are needed")
    return False


def _by_keys(keys: Mapping[str, str], text: str, name: str, otherwise: str) -> str:
    """`keys`: those of the first object, each with the character that its value begins with."""
    if "wikipedia_title" in keys and "text" in keys:
        return "kilt"
    if _QUESTION_KEYS & set(keys) and _carries_paragraphs(keys, text):
        return PARAGRAPHS
    if problem := _problem(keys, text, name):
        raise UnusableShapeError(problem)
    if "title" in keys and "[" in (keys.get("text"), keys.get("sentences")):
        return "hotpotqa"
    if otherwise == "hipporag" and set(keys) & {*ID_KEYS, "contents"} and "idx" not in keys:
        return "jsonl"
    return otherwise


def _carries_paragraphs(keys: Mapping[str, str], text: str) -> bool:
    if keys.get("paragraphs") == "[" or keys.get("context") in ("[", "{"):
        return True
    return keys.get("metadata") == "{" and bool(re.search(r'"context"\s*:\s*\{', text)) and '"sentences"' in text


def _problem(keys: Mapping[str, str], text: str, name: str) -> str | None:
    """What a known file is that makes no passages."""
    if "positive_ctxs" in keys:
        return _DPR
    if keys.get("data") == "[" and '"qas"' in text:
        return _SQUAD
    if {"question", "answers"} <= set(keys) and keys.get("context") == '"':  # SQuAD as Hugging Face has it
        return _SQUAD
    if {"document_text", "document_html", "document_tokens", "document"} & set(keys) and (
        {"question_text", "annotations"} & set(keys)
    ):
        return _NQ
    if {"query-id", "corpus-id"} <= set(keys):
        return _QRELS
    if keys.get("Data") == "[" or (_QUESTION_KEYS & set(keys) and not {"contents", "text"} & set(keys)):
        return _QUESTIONS
    if "_id" in keys and "title" not in keys and re.search(r"(^|[/:])queries[^/]*$", name):
        return _QUERIES
    return None


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]')


def _keys(text: str) -> dict[str, str]:
    """The keys of the first JSON object in a text that may be cut off, with the character after each colon."""
    keys: dict[str, str] = {}
    depth, last = 0, ""
    for token in _TOKEN.finditer(text, max(text.find("{"), 0)):
        mark = token.group()[0]
        if mark in "{[":
            depth += 1
        elif mark in "}]":
            depth -= 1
            if depth == 0:
                break
        elif mark == ":" and depth == 1 and last:
            keys[last] = text[token.end() :].lstrip()[:1]
        last = token.group()[1:-1] if mark == '"' else ""
    return keys


def _by_lines(lines: Sequence[str]) -> str:
    header = lines[0].rstrip("\r").split("\t")
    if {"id", "text"} <= set(header):
        return "dpr"
    if {"query-id", "corpus-id"} <= set(header) or all(_QREL.match(line) for line in lines[:3]):
        raise UnusableShapeError(_QRELS)
    if all(re.match(r"[^\t]+\t\"?\[['\"]", line) for line in lines[:3]):  # DPR's question and list of answers
        raise UnusableShapeError(_QUESTIONS)
    if any(re.match(r"[^\t]{1,100}\t\S", line) for line in lines):
        return "r1-searcher"
    raise UnusableShapeError(f"is in no corpus format that is known: name one with --format ({', '.join(FORMATS)})")


_QREL = re.compile(r"\S+[ \t]+(?:Q?0[ \t]+)?\S+[ \t]+-?\d+\s*$")
