"""Which questions a corpus can answer at all: an exhaustive pass that looks for every gold answer in every passage.

A question that no retriever answers may be a failure of the retriever or of the corpus. Every passage is read once. It
contains an answer exactly where `recall.first_rank` would say so of a hit.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from r1searcher.common import terminal
from r1searcher.common.terminal import SafeConsole, label
from r1searcher.corpora.named import CORPORA
from r1searcher.corpora.passage import Passage
from r1searcher.corpora.readers import Corpus
from r1searcher.questions.question import Question
from r1searcher.retrieval.engines.bm25 import EmbeddedIndex
from r1searcher.retrieval.indexing.command import fetched
from r1searcher.retrieval.indexing.manifest import folder_of, is_index, kind_of_index
from r1searcher.rewards.metrics import has_words, normalize

_EVERY_ROW = 1 << 62
"""Rows that are not passages never stop the pass: the index does not have them either."""


def answer_text(passage: Passage) -> str:
    """The normalized text in which gold answers are looked for."""
    return normalize(f"{passage.title} {passage.text}")


@dataclass(frozen=True, slots=True)
class CorpusAnswers:
    """The outcome of a pass. `first` has, for each question, the id of the first passage with a gold answer, or None;
    `bad_rows` counts rows of the corpus that are not passages."""

    source: str
    passages: int
    bad_rows: int
    first: tuple[str | None, ...]

    @property
    def answerable(self) -> list[bool]:
        return [id_ is not None for id_ in self.first]


class AnswerSearch:
    """Looks for the gold answers of all questions in one passage after the other.

    An answer is compared only with passages that have its rarest word, counted over the gold answers, and only until
    it is found. So nearly all of the time is that of normalizing the passages.
    """

    def __init__(self, questions: Sequence[Question]) -> None:
        self.first: list[str | None] = [None] * len(questions)
        self._questions: dict[str, list[int]] = {}
        for place, question in enumerate(questions):
            for answer in {normalize(gold) for gold in question.gold_answers} - {""}:
                self._questions.setdefault(answer, []).append(place)
        counts = Counter(word for answer in self._questions for word in set(answer.split()))
        self._by_word: dict[str, set[str]] = {}
        for answer in self._questions:
            rarest = min(answer.split(), key=lambda word: (counts[word], -len(word), word))
            self._by_word.setdefault(rarest, set()).add(answer)

    def read(self, passage: Passage) -> None:
        text = answer_text(passage)
        for word in self._by_word.keys() & set(text.split()):
            found = [answer for answer in self._by_word[word] if has_words(text, answer)]
            for answer in found:
                for place in self._questions[answer]:
                    if self.first[place] is None:
                        self.first[place] = passage.id
            self._by_word[word].difference_update(found)
            if not self._by_word[word]:
                del self._by_word[word]


def search_corpus(source: str, questions: Sequence[Question], console: SafeConsole) -> CorpusAnswers:
    """Read the corpus or the embedded index `source`, with progress on `console`.

    Raises what reading a corpus and opening an index raise.
    """
    from rich.progress import BarColumn, TimeRemainingColumn

    source_ = _opened(source, console)
    answers, read = AnswerSearch(questions), 0
    columns = (BarColumn(), label("{task.fields[read]:,} passages of the corpus read, left"), TimeRemainingColumn())
    with terminal.progress(*columns, console=console) as progress:
        task = progress.add_task("read", total=source_.total, read=0)
        for read, passage in enumerate(source_.passages, 1):
            answers.read(passage)
            if read % 1000 == 0:
                progress.update(task, completed=source_.done(read), read=read)
    return CorpusAnswers("standard input" if source == "-" else source, read, source_.bad_rows(), tuple(answers.first))


class _Source(NamedTuple):
    """Passages; the size of all, in bytes or passages, if it is known; how much of that is read, given the number of
    passages; how many rows so far are not passages."""

    passages: Iterable[Passage]
    total: int | None
    done: Callable[[int], int]
    bad_rows: Callable[[], int]


def _opened(source: str, console: SafeConsole) -> _Source:
    if is_index(folder := Path(folder_of(source.removeprefix("dense:")))):
        if kind_of_index(folder) == "dense":
            from r1searcher.retrieval.indexing.dense import passages_of  # imports numpy

            stored = passages_of(folder)
            return _Source(stored, len(stored), lambda read: read, lambda: 0)
        index = EmbeddedIndex(folder)
        return _Source(index.passages(), index.manifest.passages, lambda read: read, lambda: 0)
    named = CORPORA.get(source)
    file = fetched(source, console) if named else source
    corpus = Corpus(file, named.format or None if named else None, bad_allowed=_EVERY_ROW)
    return _Source(corpus, corpus.total_bytes, lambda _: corpus.read_bytes, lambda: corpus.bad)
