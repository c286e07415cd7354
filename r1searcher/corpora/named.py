"""Corpora known by name: where they lie, how they are told from a damaged copy, and how they are fetched."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from r1searcher.common import files
from r1searcher.common.download import download
from r1searcher.errors import InputError, ServiceError


@dataclass(frozen=True, slots=True)
class NamedCorpus:
    """A published corpus. `checksum` is `sha256:…` or `md5:…`; None where only the server states one (Hugging Face's
    `X-Linked-Etag`). `bytes_` is the size of the file fetched, 0 where the publisher states none."""

    name: str
    url: str
    format: str
    bytes_: int
    checksum: str | None
    about: str

    @property
    def file_name(self) -> str:
        return self.url.rpartition("/")[2]


NAMED = {
    corpus.name: corpus
    for corpus in (
        NamedCorpus(
            "hotpotqa-abstracts",
            "https://nlp.stanford.edu/projects/hotpotqa/enwiki-20171001-pages-meta-current-withlinks-abstracts.tar.bz2",
            "hotpotqa",
            1_553_565_403,
            "sha256:1acca1c5cc93c4890ea51091d2bad7c3ef6987aead127ab88728dc9e26555729",
            "first paragraphs of the English Wikipedia of October 2017, 5.2 M passages",
        ),
        NamedCorpus(
            "kilt-100w",
            "http://dl.fbaipublicfiles.com/KILT/kilt_knowledgesource.json",
            "kilt",
            37_318_876_722,
            "md5:d1dca62aa6ba889d2e842182e3114af5",
            "the English Wikipedia of August 2019 in passages of 100 words, 29 M",
        ),
        NamedCorpus(
            "wiki-18",
            "https://huggingface.co/datasets/PeterJinGo/wiki-18-corpus/resolve/main/wiki-18.jsonl.gz",
            "jsonl",
            0,
            None,
            "Search-R1's: the English Wikipedia of December 2018 in passages of 100 words, 21 M",
        ),
    )
}


def cache_folder() -> Path:
    """Where fetched corpora are kept: `corpora` in r1s's cache folder (R1S_CACHE moves it)."""
    return files.cache_folder("corpora")


def fetch(
    corpus: NamedCorpus,
    folder: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    pause: Callable[[float], None] = time.sleep,
) -> Path:
    """The corpus file, from `folder` or from the network into it.

    See `common.download`. `on_progress` gets bytes done and in all (0 where unknown). Raises `InputError`
    with the file to bring where the network does not allow it.
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
            f"{corpus.name} could not be fetched from {corpus.url} ({reason}). "
            + (f"{kept:,} bytes are kept and the same command goes on from there. " if kept else "")
            + f"Or bring the file yourself and put it at {target}."
        ) from error
