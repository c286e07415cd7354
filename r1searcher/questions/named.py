"""Questions by the name of a dataset or a file: for training, held-out questions, recall and evaluation."""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from r1searcher.common.download import download
from r1searcher.common.files import cache_folder
from r1searcher.common.hub import hub_file
from r1searcher.errors import InputError, ServiceError
from r1searcher.questions.datasets import DATASETS, PublishedFile, Source
from r1searcher.questions.quality import quality_warnings
from r1searcher.questions.question import Question
from r1searcher.questions.read import Questions, read_question_file, read_question_rows

_MOST_BYTES = 4 << 30
_INSTEAD = "give a folder with the file (--data-dir, data.folder; --from of `r1s data`)"


@dataclass(frozen=True, slots=True)
class Dataset:
    """Questions in file order. `warnings` are about suspicious rows, one sentence each."""

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
    """A question file, or a named dataset, optionally with a split after a colon ("hotpotqa:dev").

    Named ones come from `folder` if given, otherwise from the cache or the hub. Without a split, `training` uses the
    training split and everything else the one for evaluation. `strict` rejects a file with a bad row; the rows of a
    named dataset are its publisher's, so bad ones are skipped there and listed in the warnings.

    Raises `InputError` for what is neither a file nor a name, if no row can be used, and for a changed copy of a
    published file; `R1Error` if a download fails.
    """
    split = _split(name, training)
    place = _place(name, split, folder)
    if callable(place):
        source, read = _described(place), _called(place, limit)
    else:
        source, read = str(place), read_question_file(place, limit=limit, strict=strict and split is None)
        _check_content(split, place, read.sha256)
    warnings = quality_warnings(read.questions)
    if read.refused:
        rows = "1 unusable row" if len(read.refused) == 1 else f"{len(read.refused)} unusable rows"
        warnings.insert(0, f"{rows} skipped, the first in {read.refused[0]}")
    return Dataset(_label(name, split), source, read.sha256, read.questions, tuple(warnings))


def is_here(name: str, folder: Path | str | None = None, *, training: bool = False) -> bool:
    """Whether `open_dataset` can read it without a download."""
    return _without_download(name, _split(name, training), folder) is not None


def _check_content(split: "_Split | None", file: Path, sha256: str) -> None:
    """Raises `InputError` if a published file was changed."""
    published = split.source if split else None
    if split and isinstance(published, PublishedFile) and published.sha256 != sha256:
        raise InputError(
            f"{file} is not the published file of {split.dataset}:{split.name}: its SHA-256 is {sha256[:12]}… and not "
            f"{published.sha256[:12]}…; remove it, or give it as a file instead of by that name"
        )


@dataclass(frozen=True, slots=True)
class _Split:
    """One split of a named dataset."""

    dataset: str
    name: str

    @property
    def is_evaluated(self) -> bool:
        return self.name == DATASETS[self.dataset].evaluated_split

    @property
    def source(self) -> Source:
        return DATASETS[self.dataset].splits[self.name]


def _split(name: str, training: bool) -> _Split | None:
    """The split that a name means; None for a file. Raises `InputError` for a split that is not there."""
    base, colon, split = name.partition(":")
    if base not in DATASETS or (colon and _exists(Path(name))):
        return None
    named = DATASETS[base]
    if not colon:
        split = "train" if training else named.evaluated_split
    if split not in named.splits:
        splits = " or ".join(f"{base}:{known}" for known in named.splits)
        wanted = f"no split {split!r}" if colon else "no training split"
        raise InputError(f"the dataset {base} has {wanted}: give {splits}")
    return _Split(base, split)


Rows = Callable[[], Iterable[Any]]


def _place(name: str, split: _Split | None, folder: Path | str | None) -> Path | Rows:
    """The file or function to read, downloaded if necessary. Raises `InputError` if there is none."""
    if (place := _without_download(name, split, folder)) is not None:
        return place
    if split is None:
        near = difflib.get_close_matches(name.partition(":")[0], list(DATASETS), 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        shown = name if len(name) <= 100 else f"{name[:100]}…"
        known = ", ".join(DATASETS)
        raise InputError(f"there is no dataset {shown!r}{hint}: give a file of questions, or one of {known}")
    if isinstance(split.source, Path):
        raise InputError(f"the dataset {split.dataset} has no file {split.source}: install its package again")
    if folder:
        names = ", ".join(str(file.relative_to(folder)) for file in _candidates(split, Path(folder)))
        raise InputError(f"the folder {folder} does not contain {split.dataset}:{split.name}: looked for {names}")
    return _downloaded(split)


def _without_download(name: str, split: _Split | None, folder: Path | str | None) -> Path | Rows | None:
    """Where the questions are on this machine; None if they are not. With `folder`, the cache is not searched."""
    places: list[Path | Rows]
    if split is None:
        places = [Path(name)] if name.strip() else []
    else:
        places = [*_candidates(split, Path(folder))] if folder else []
        if not isinstance(split.source, (str, PublishedFile)):
            places.append(split.source)
        elif not folder:
            places.append(_cached(split))
    return next((place for place in places if callable(place) or _exists(place)), None)


def _exists(file: Path) -> bool:
    try:
        return file.exists()
    except OSError:  # too long, or in a folder that may not be entered: opening it reports that
        return True


def _label(name: str, split: _Split | None) -> str:
    """The name in reports: "hotpotqa" for the evaluated split, "hotpotqa:train" for another, or a file's stem."""
    if split is None:
        return Path(name).stem
    return split.dataset if split.is_evaluated else f"{split.dataset}:{split.name}"


def _candidates(split: _Split, folder: Path) -> list[Path]:
    names: tuple[str, ...] = DATASETS[split.dataset].files if split.is_evaluated else ()
    if isinstance(published := split.source, PublishedFile):
        names = (*names, published.path, Path(published.path).name)
    return [*(folder / name for name in names), folder / split.dataset / f"{split.name}.jsonl"]


def _cached(split: _Split) -> Path:
    return cache_folder("datasets", split.dataset) / f"{split.name}.jsonl"


def _downloaded(split: _Split) -> Path:
    source = split.source
    published = source if isinstance(source, PublishedFile) else None
    checksum = f"sha256:{published.sha256}" if published else None
    failures: list[ServiceError] = []
    for url in published.urls if published else (str(source),):
        try:
            return download(_url(url), _cached(split), checksum=checksum, most=_MOST_BYTES)
        except ServiceError as error:
            failures.append(error)
    transient = all(error.transient for error in failures)
    raise ServiceError(f"{'; '.join(map(str, failures))}; {_INSTEAD}", transient=transient) from failures[-1]


def _url(source: str) -> str:
    """The address of a file."""
    parts = urlsplit(source)
    if parts.scheme != "hf":
        return source
    owner, name, path = parts.path.lstrip("/").split("/", 2)
    return hub_file(f"{parts.netloc}/{owner}/{name}", path)


def _described(rows: Rows) -> str:
    return f"{getattr(rows, '__module__', '')}:{getattr(rows, '__qualname__', type(rows).__name__)}"


def _called(rows: Rows, limit: int | None) -> Questions:
    """The questions that a function yields; `sha256` is theirs. Raises `InputError` if it fails."""
    try:
        return read_question_rows(rows(), f"the function {_described(rows)}", limit=limit)
    except InputError:
        raise
    except Exception as error:  # another package's function may raise anything
        raise InputError(f"the function {_described(rows)} failed: {type(error).__name__}: {error}") from error
