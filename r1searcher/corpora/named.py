"""Corpora known by name: where they lie, how they are told from a damaged copy, and how they are fetched."""

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import urllib3

from r1searcher.common import files
from r1searcher.errors import InputError


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

TRIES = 5
"""How often a transfer that makes no headway is tried again."""


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

    A transfer that breaks is taken up where it stopped, within this call and in the next. The file gets its name only
    when size and checksum are right. `on_progress` gets bytes done and in all (0 where unknown). Raises `InputError`
    with the file to bring where the network does not allow it.
    """
    target = folder / corpus.file_name
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            checksum = corpus.checksum or _stated_checksum(corpus.url)
            _transfer(corpus, part, on_progress)
            break
        except _NotFetchedError as error:
            failures = 0 if part.exists() and part.stat().st_size > before else failures + 1
            if failures >= TRIES or error.final:
                kept = part.stat().st_size if part.exists() else 0
                raise InputError(
                    f"{corpus.name} could not be fetched from {corpus.url} ({error}). "
                    + (f"{kept:,} bytes are kept and the same command goes on from there. " if kept else "")
                    + f"Or bring the file yourself and put it at {target}."
                ) from error
            pause(min(2.0**failures, 30.0))
    _verify(corpus, part, checksum)
    part.rename(target)
    return target


class _NotFetchedError(Exception):
    def __init__(self, reason: str, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


def _transfer(corpus: NamedCorpus, part: Path, on_progress: Callable[[int, int], None]) -> None:
    """Appends what is missing to `part`."""
    done = part.stat().st_size if part.exists() else 0
    if corpus.bytes_ and done >= corpus.bytes_:
        return
    headers = {"Range": f"bytes={done}-"} if done else {}
    try:
        with urllib3.PoolManager() as pool:
            answer = pool.request(
                "GET", corpus.url, headers=headers, timeout=_TIMEOUT, retries=_RETRIES, preload_content=False
            )
            if answer.status == 416:  # everything is there
                return
            if answer.status not in (200, 206):
                raise _NotFetchedError(f"status {answer.status}", final=answer.status in (401, 403, 404, 410))
            if answer.status == 200:
                done = 0
            length = int(answer.headers.get("Content-Length") or 0)
            total = done + length if length else corpus.bytes_
            with part.open("ab" if done else "wb") as file:
                for piece in answer.stream(1 << 16):
                    file.write(piece)
                    done += len(piece)
                    on_progress(done, total)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise _NotFetchedError(_reason(error)) from error
    if done < total:
        raise _NotFetchedError(f"the transfer ended after {done:,} of {total:,} bytes")


_TIMEOUT = urllib3.Timeout(connect=10, read=60)
_RETRIES = urllib3.Retry(connect=0, read=0, status=0, other=0, redirect=5)


def _stated_checksum(url: str) -> str | None:
    """What Hugging Face says of a large file before it redirects to it."""
    try:
        with urllib3.PoolManager() as pool:
            answer = pool.request("HEAD", url, redirect=False, timeout=_TIMEOUT, retries=_RETRIES)
    except urllib3.exceptions.HTTPError as error:
        raise _NotFetchedError(_reason(error)) from error
    digest = answer.headers.get("X-Linked-Etag", "").strip('"')
    return f"sha256:{digest}" if len(digest) == 64 else None


def _reason(error: Exception) -> str:
    """The innermost sentence of a transport error, without addresses of objects."""
    inner = getattr(error, "reason", None) or error
    return re.sub(r"^<[^>]*>: |^HTTPS?Connection[^:]*: ", "", str(inner)).rstrip(".")


def _verify(corpus: NamedCorpus, part: Path, checksum: str | None) -> None:
    """Raises `InputError`, and removes the file, where it is not the one published."""
    size = part.stat().st_size
    problem = f"has {size:,} bytes and not {corpus.bytes_:,}" if corpus.bytes_ not in (0, size) else ""
    if checksum and not problem:
        algorithm, _, expected = checksum.partition(":")
        with part.open("rb") as file:
            if hashlib.file_digest(file, algorithm).hexdigest() != expected:
                problem = f"has another {algorithm} than {expected}"
    if problem:
        part.unlink()
        raise InputError(f"{corpus.name} from {corpus.url} {problem}: it was damaged on its way; fetch it again.")
