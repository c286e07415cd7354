"""Named corpora, downloaded once."""

import time
from collections.abc import Callable
from pathlib import Path

from r1searcher.common import files
from r1searcher.common.download import download
from r1searcher.corpora.named import NamedCorpus
from r1searcher.errors import InputError, ServiceError


def cache_folder() -> Path:
    """The folder of downloaded corpora: `corpora` in the r1s cache folder (set by R1S_CACHE)."""
    return files.cache_folder("corpora")


def fetch(
    corpus: NamedCorpus,
    folder: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    pause: Callable[[float], None] = time.sleep,
) -> Path:
    """The corpus file, from `folder` or from the network into it.

    See `common.download`. `on_progress` gets bytes done and total bytes (0 if unknown). Raises `InputError` with the
    file to provide if the download fails.
    """
    target = folder / corpus.file_name
    try:
        return download(
            corpus.url, target, size=corpus.bytes_, checksum=corpus.checksum, on_progress=on_progress, pause=pause
        )
    except ServiceError as error:
        part = target.with_name(target.name + ".part")
        kept = part.stat().st_size if part.exists() else 0
        reason = str(error).removeprefix(f"{corpus.url} ")
        raise InputError(
            f"the corpus could not be downloaded from {corpus.url} ({reason}). "
            + (f"{kept:,} bytes are kept, and the same command continues from there. " if kept else "")
            + f"Or get the file yourself and put it at {target}."
        ) from error
