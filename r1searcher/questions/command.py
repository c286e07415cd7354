"""The command `data r1-searcher`."""

from pathlib import Path

from r1searcher.common.files import read_bytes, sha256_of, write_bytes
from r1searcher.common.terminal import text_line
from r1searcher.errors import InputError
from r1searcher.questions.datasets import DATASETS, R1_SEARCHER, TRAINED, PublishedFile
from r1searcher.questions.named import Dataset, is_here, open_dataset


def write_release(to: Path, folder: Path | None) -> None:
    """Write the questions that R1-Searcher's authors released into the folder `to`, and print what they are.

    They come from `folder`, or are downloaded. Only the authors' own files are written, byte by byte; the sets for
    evaluation may be missing in `folder`. Raises `InputError` for a file that was changed, that is missing, or that
    would replace another one, and `ServiceError` if the network fails.
    """
    if folder is not None and not folder.is_dir():
        raise InputError(f"--from {folder} is not a folder: give the one with training_set/ and eval_set/")
    for split, source in DATASETS[R1_SEARCHER].splits.items():
        assert isinstance(source, PublishedFile)
        name, target = f"{R1_SEARCHER}:{split}", to / Path(source.path).name
        if folder and split not in TRAINED and not is_here(name, folder):
            text_line(f"{name}: not in {folder}")
            continue
        dataset = open_dataset(name, folder)
        _copy(Path(dataset.source), target, source.sha256)
        text_line(_described(name, target, dataset))


def _copy(source: Path, target: Path, sha256: str) -> None:
    if not target.exists():
        write_bytes(target, read_bytes(source, "the question file"))
    elif sha256_of(target) != sha256:
        raise InputError(f"{target} exists and is another file: remove it, or choose another folder with --to")


def _described(name: str, target: Path, dataset: Dataset) -> str:
    notes = "".join(f"\n  {warning}" for warning in dataset.warnings)
    return f"{name}: {len(dataset.questions):,} questions in {target}{notes}"
