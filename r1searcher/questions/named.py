"""Datasets by name, wherever a question file can be given: training, held-out questions, recall, evaluation."""

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from r1searcher.common.download import download
from r1searcher.common.files import cache_folder
from r1searcher.errors import InputError, ServiceError
from r1searcher.questions.quality import quality_warnings
from r1searcher.questions.question import Question
from r1searcher.questions.read import read_question_file

HUB = "https://huggingface.co"
HUB_DATASET = "RUC-NLPIR/FlashRAG_datasets"
_MOST_BYTES = 4 << 30
_INSTEAD = "give a folder with the file (--data-dir, data.folder)"


@dataclass(frozen=True, slots=True)
class Named:
    """A dataset of `HUB_DATASET` (public, FlashRAG rows, one file per split).

    `evaluated` is the split that evaluations take. `local` are files that stand for that split in a folder, looked for
    before the hub's own path.
    """

    splits: tuple[str, ...]
    evaluated: str
    local: tuple[str, ...]


NAMED: Mapping[str, Named] = {
    "bamboogle": Named(("test",), "test", ("bamboogle.jsonl",)),
    "hotpotqa": Named(("train", "dev"), "dev", ("hotpotqa.jsonl", "hotpotqa_500.jsonl")),
    "2wikimultihopqa": Named(("train", "dev"), "dev", ("2wikimultihopqa.jsonl", "2wiki_500.jsonl")),
    "musique": Named(("train", "dev"), "dev", ("musique.jsonl", "musique_500.jsonl")),
    "nq": Named(("train", "dev", "test"), "test", ("nq.jsonl",)),
    "triviaqa": Named(("train", "dev", "test"), "test", ("triviaqa.jsonl",)),
    "popqa": Named(("test",), "test", ("popqa.jsonl",)),
}
"""R1-Searcher evaluates on 500 rows of its own draw of HotpotQA, 2WikiMultihopQA and MuSiQue (`eval_set/` in its
repository); the hub's files are the whole development sets. The report says which file was read, and its hash.
"""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Questions in file order. `warnings` says what is odd about the rows, a sentence each."""

    name: str
    source: str
    sha256: str
    questions: tuple[Question, ...]
    warnings: tuple[str, ...]


def open_dataset(
    name: str,
    folder: Path | str | None = None,
    *,
    limit: int | None = None,
    strict: bool = False,
    training: bool = False,
) -> Dataset:
    """A question file, or a named dataset, with a split after a colon if wanted ("hotpotqa:dev").

    Named ones come from `folder` where it is given, else from the cache or the hub. Without a split, `training` takes
    the training split and everything else the one that evaluations use. `strict` refuses a file with a bad row; rows of
    a named dataset are the hub's, so bad ones are left out there and told in the notes.

    Raises `InputError` for what is neither a file nor a name and where no row can be used, and `R1Error` where a
    download fails.
    """
    chosen = _chosen(name, training)
    file = _file(name, folder or None, training)
    read = read_question_file(file, limit=limit, strict=strict and chosen is None)
    warnings = quality_warnings(read.questions)
    if read.refused:
        rows = "1 unusable row" if len(read.refused) == 1 else f"{len(read.refused)} unusable rows"
        warnings.insert(0, f"{rows}, the first in {read.refused[0]}; left out")
    return Dataset(_label(name, chosen, file), str(file), read.sha256, read.questions, tuple(warnings))


def local_file(name: str, folder: Path | str | None = None, *, training: bool = False) -> Path | None:
    """The file that `open_dataset` would read, if it needs no download and is there."""
    chosen = _chosen(name, training)
    if chosen is None:
        file = Path(name)
    else:
        wanted = _candidates(*chosen, Path(folder)) if folder else [_cached(*chosen)]
        file = next((candidate for candidate in wanted if _exists(candidate)), wanted[-1])
    return file if _exists(file) else None


def _chosen(name: str, training: bool) -> tuple[str, str] | None:
    """(dataset, split) that a name stands for; None for a file. Raises `InputError` for a split that is not there."""
    base, colon, split = name.partition(":")
    if base not in NAMED or (colon and _exists(Path(name))):
        return None
    named = NAMED[base]
    if not colon:
        split = "train" if training else named.evaluated
    if split not in named.splits:
        splits = " or ".join(f"{base}:{known}" for known in named.splits)
        wanted = f"no split {split!r}" if colon else "no training split"
        raise InputError(f"the dataset {base} has {wanted}: give {splits}")
    return base, split


def _file(name: str, folder: Path | str | None, training: bool) -> Path:
    chosen = _chosen(name, training)
    if chosen is not None:
        return _in_folder(*chosen, Path(folder)) if folder else _downloaded(*chosen)
    if not name.strip() or not _exists(Path(name)):
        near = difflib.get_close_matches(name.partition(":")[0], NAMED, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        shown = name if len(name) <= 100 else f"{name[:100]}…"
        raise InputError(f"there is no dataset {shown!r}{hint}: give a file of questions, or one of {', '.join(NAMED)}")
    return Path(name)


def _label(name: str, chosen: tuple[str, str] | None, file: Path) -> str:
    """What figures are filed under: "hotpotqa" for the evaluated split, "hotpotqa:train" for another, a file's stem."""
    if chosen is None:
        return file.stem
    base, split = chosen
    return base if split == NAMED[base].evaluated else f"{base}:{split}"


def _exists(file: Path) -> bool:
    try:
        return file.exists()
    except OSError:  # too long, or in a folder that may not be entered: whoever opens it says so
        return True


def _in_folder(base: str, split: str, folder: Path) -> Path:
    wanted = _candidates(base, split, folder)
    for file in wanted:
        if _exists(file):
            return file
    names = ", ".join(str(file.relative_to(folder)) for file in wanted)
    raise InputError(f"the folder {folder} holds no {base}:{split}: looked for {names}")


def _candidates(base: str, split: str, folder: Path) -> list[Path]:
    names = NAMED[base].local if split == NAMED[base].evaluated else ()
    return [*(folder / name for name in names), folder / base / f"{split}.jsonl"]


def _cached(base: str, split: str) -> Path:
    return cache_folder("datasets", base) / f"{split}.jsonl"


def _downloaded(base: str, split: str) -> Path:
    """The file of a split, from the cache where it is there. HF_ENDPOINT names another hub, as it does for Hugging
    Face's own tools."""
    target = _cached(base, split)
    if target.is_file():
        return target
    hub = os.environ.get("HF_ENDPOINT") or HUB
    url = f"{hub.rstrip('/')}/datasets/{HUB_DATASET}/resolve/main/{base}/{split}.jsonl"
    try:
        return download(url, target, most=_MOST_BYTES)
    except ServiceError as error:
        raise ServiceError(f"{error}; {_INSTEAD}", transient=error.transient) from error
