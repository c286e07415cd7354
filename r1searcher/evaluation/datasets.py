"""Questions to evaluate on: named data sets from the hub or a folder, or any file; and what is odd about them."""

import hashlib
import json
import os
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from r1searcher.episodes.questions import Question, question_of
from r1searcher.errors import InputError, R1Error
from r1searcher.rewards.format import MAX_ANSWER_WORDS
from r1searcher.rewards.metrics import normalise

HUB = "https://huggingface.co"
HUB_DATASET = "RUC-NLPIR/FlashRAG_datasets"

NAMED = {
    "bamboogle": ("bamboogle/test.jsonl", ("bamboogle.jsonl",)),
    "hotpotqa": ("hotpotqa/dev.jsonl", ("hotpotqa.jsonl", "hotpotqa_500.jsonl")),
    "2wikimultihopqa": ("2wikimultihopqa/dev.jsonl", ("2wikimultihopqa.jsonl", "2wiki_500.jsonl")),
    "musique": ("musique/dev.jsonl", ("musique.jsonl", "musique_500.jsonl")),
    "nq": ("nq/test.jsonl", ("nq.jsonl",)),
    "triviaqa": ("triviaqa/test.jsonl", ("triviaqa.jsonl",)),
    "popqa": ("popqa/test.jsonl", ("popqa.jsonl",)),
}
"""Name to the file in `HUB_DATASET` (public, FlashRAG rows), and to the files looked for in a folder before that one.

R1-Searcher evaluates on 500 rows of its own draw of HotpotQA, 2WikiMultihopQA and MuSiQue (`eval_set/` in its
repository); the hub's files are the whole development sets. The report says which file was read, and its hash.
"""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Questions in file order. `notes` says what is odd about the rows, a sentence each."""

    name: str
    source: str
    sha256: str
    questions: tuple[Question, ...]
    notes: tuple[str, ...]


def open_dataset(name: str, data_dir: Path | None = None, limit: int | None = None) -> Dataset:
    """A file, or a named data set: from `data_dir` where it is given, else from the cache or the hub.

    Rows without a question or a gold are left out and counted in the notes. Raises `InputError` where there is no such
    data set or no row of it can be used.
    """
    file = Path(name)
    if name in NAMED:
        file = _in_folder(name, data_dir) if data_dir is not None else _downloaded(NAMED[name][0])
    elif not file.is_file():
        raise InputError(f"there is no data set {name!r}: give a JSONL file or one of {', '.join(NAMED)}")
    try:
        data = file.read_bytes()
        lines = data.decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the data set {file} can't be read: {error}") from None
    questions, refused = _questions(lines)
    if not questions:
        raise InputError(f"the data set {file} holds no question that can be scored{'; ' + refused if refused else ''}")
    notes = ([f"{refused}; left out"] if refused else []) + oddities(questions)
    return Dataset(
        name if name in NAMED else file.stem,
        str(file),
        hashlib.sha256(data).hexdigest(),
        tuple(questions[:limit]),
        tuple(notes),
    )


def _questions(lines: Iterable[str]) -> tuple[list[Question], str]:
    questions, reasons = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("not a JSON object")
            questions.append(question_of(row, str(number)))
        except ValueError as error:
            reasons.append(f"line {number}: {error}")
    return questions, f"{len(reasons)} unusable rows, the first in {reasons[0]}" if reasons else ""


def oddities(
    questions: Sequence[Question], trained_on: Iterable[str] = (), max_answer_words: int = MAX_ANSWER_WORDS
) -> list[str]:
    """What a reader of the figures must know of the rows: duplicates, golds that can't be earned, overlap."""
    notes = []
    texts = Counter(_key(question.text) for question in questions)
    if repeated := sum(count - 1 for count in texts.values()):
        notes.append(f"{repeated} questions repeat an earlier one")
    ids = Counter(question.id for question in questions)
    if repeated := sum(count - 1 for count in ids.values()):
        notes.append(f"{repeated} rows repeat an earlier id")
    too_long = [q for q in questions if all(len(gold.split()) > max_answer_words for gold in q.golds)]
    if too_long:
        notes.append(
            f"{len(too_long)} questions have only golds of more than {max_answer_words} words: a right answer would "
            f"break the format (first: id {too_long[0].id})"
        )
    if nothing := [q for q in questions if not any(normalise(gold) for gold in q.golds)]:
        notes.append(f"{len(nothing)} questions have only golds that normalise to nothing (first: id {nothing[0].id})")
    seen = {_key(text) for text in trained_on}
    if overlap := sum(count for text, count in texts.items() if text in seen):
        notes.append(f"{overlap} questions stand in the training data too")
    return notes


def _key(text: str) -> str:
    return normalise(text)


def _in_folder(name: str, folder: Path) -> Path:
    hub_path, names = NAMED[name]
    candidates = [folder / candidate for candidate in (*names, hub_path)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise InputError(
        f"{folder} holds no {name}: looked for {', '.join(str(c.relative_to(folder)) for c in candidates)}"
    )


def _downloaded(path: str) -> Path:
    """A file of `HUB_DATASET`, from the cache below R1S_CACHE (default ~/.cache/r1searcher) where it is there.

    HF_ENDPOINT names another hub, as it does for Hugging Face's own tools.
    """
    cache = Path(os.environ.get("R1S_CACHE", Path.home() / ".cache" / "r1searcher"))
    target = cache / "datasets" / path
    if target.is_file():
        return target
    url = f"{os.environ.get('HF_ENDPOINT', HUB).rstrip('/')}/datasets/{HUB_DATASET}/resolve/main/{path}"
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            data = response.read()
    except urllib.error.HTTPError as error:
        raise R1Error(f"{url} answered {error.code}; give a folder with the file by --data-dir") from error
    except OSError as error:
        raise R1Error(f"{url} can't be reached ({error}); give a folder with the file by --data-dir") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    part.write_bytes(data)
    part.replace(target)
    return target
