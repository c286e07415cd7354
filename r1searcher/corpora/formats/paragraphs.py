"""Questions with their paragraphs. A paragraph is one passage, regardless of how many questions share it."""

import hashlib
import re
from collections.abc import Iterator

from r1searcher.corpora.detect import QUESTION_KEYS, Sample
from r1searcher.corpora.formats import CorpusFormat
from r1searcher.corpora.json_rows import Row, json_reader
from r1searcher.corpora.passage import Passage, SharedPassage, make_passage


def passages_of(row: Row, number: int) -> Iterator[Passage]:
    carried = _carried(row)
    if isinstance(carried, dict):  # Hugging Face's columns: titles in one list, sentences in another
        titles, texts = carried.get("title"), carried.get("sentences", carried.get("content"))
        if not isinstance(titles, list) or not isinstance(texts, list) or len(titles) != len(texts):
            raise ValueError("`context` does not hold one list of sentences per title")
        carried = [list(pair) for pair in zip(titles, texts, strict=True)]
    if not isinstance(carried, list):
        raise ValueError("the question carries no paragraphs: neither a list `context` nor a list `paragraphs`")
    yield from [_paragraph(entry) for entry in carried]


def has_paragraphs(row: Row) -> bool:
    """Whether a question carries its paragraphs: `context` (also below FlashRAG's `metadata`), or `paragraphs`."""
    return isinstance(_carried(row), (list, dict))


def _carried(row: Row) -> object:
    if row.get("paragraphs") is not None:
        return row["paragraphs"]
    if row.get("context") is not None:
        return row["context"]
    return _carried(inner) if isinstance(inner := row.get("metadata"), dict) else None


def _paragraph(entry: object) -> SharedPassage:
    if isinstance(entry, dict):  # MuSiQue
        title, text = entry.get("title"), entry.get("paragraph_text")
    elif isinstance(entry, list) and len(entry) == 2:
        title, text = entry
    else:
        raise ValueError("a paragraph is neither [title, sentences] nor {title, paragraph_text}")
    if isinstance(text, list) and all(isinstance(sentence, str) for sentence in text):
        text = "".join(sentence if sentence[:1].isspace() else f" {sentence}" for sentence in text)
    passage = make_passage("0", title, text)
    # The content decides the id: the same paragraph has one id in every question, and no two paragraphs share one.
    digest = hashlib.blake2b(f"{passage.title}\n{passage.text}".encode(), digest_size=8).digest()
    return SharedPassage(str(int.from_bytes(digest)), passage.title, passage.text)


def _detects(sample: Sample) -> bool:
    keys = sample.keys
    if not QUESTION_KEYS & keys.keys():
        return False
    if keys.get("paragraphs") == "[" or keys.get("context") in ("[", "{"):
        return True
    nested = keys.get("metadata") == "{" and bool(re.search(r'"context"\s*:\s*\{', sample.text))
    return nested and '"sentences"' in sample.text


FORMAT = CorpusFormat(
    json_reader(passages_of),
    "questions that carry their paragraphs: HotpotQA's and 2WikiMultihopQA's `context`, MuSiQue's `paragraphs`; each "
    "paragraph once",
    _detects,
)
