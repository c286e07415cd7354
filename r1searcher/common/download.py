"""Downloads: resumed after an interruption, verified, and complete or absent."""

import asyncio
import fcntl
import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedRandom
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from r1searcher.common.files import writing
from r1searcher.common.http import Key, Limits, connected, http_client, is_transient, retry_after, shown_url, split_url
from r1searcher.common.retry import RetryPolicy
from r1searcher.common.terminal import visible
from r1searcher.errors import FileError, InputError, ServiceError

if TYPE_CHECKING:
    import httpx

RETRIES = RetryPolicy(tries=5, first_pause=1.0, longest_pause=30.0)
"""A download fails after five consecutive failures without a new byte."""

_REDIRECTS = 5
_ANSWER = 60.0  # seconds until the response begins
_WINDOW, _WINDOW_BYTES = 60.0, 64 << 10  # a transfer with fewer bytes than these in these seconds is aborted


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A file to download. `size` is 0 and `checksum` None if unknown; `most` is the largest allowed size in bytes."""

    url: str
    target: Path
    size: int
    checksum: str | None
    most: int
    key: Key | None
    on_progress: Callable[[int, int], None] = field(repr=False)

    @property
    def part(self) -> Path:
        return self.target.with_name(self.target.name + ".part")

    def headers(self, url: str) -> dict[str, str]:
        """The key for its own host; a redirect to another one does not get it."""
        if self.key is None or urlsplit(url)[:2] != urlsplit(self.url)[:2]:
            return {}
        return {"Authorization": f"Bearer {self.key.value}"}

    def failure(self, reason: str, *, transient: bool = False, retry_after: float | None = None) -> ServiceError:
        return ServiceError(
            f"{shown_url(self.url)} {visible(reason)[:300]}", transient=transient, retry_after=retry_after
        )


def download(
    url: str,
    target: Path,
    *,
    size: int = 0,
    checksum: str | None = None,
    most: int = 1 << 40,
    key: Key | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    pause: Callable[[float], None] = time.sleep,
) -> Path:
    """Downloads `url` to `target` unless `target` exists; returns `target`.

    checksum: `sha256:…` or `md5:…`; if None, the `X-Linked-Etag` header of Hugging Face is used, if present.
    size: bytes, 0 if unknown. key: sent as a bearer token, to the URL's own host only. on_progress: called with bytes
    done and total bytes (0 if unknown). An interrupted transfer is resumed within this call and, if there is a checksum
    to verify it, by the next call. Blocks; for code without a running event loop.

    Raises `InputError` for a malformed URL and while another process downloads the file, `ServiceError` if the
    network fails or the file is not the published one, and `FileError` if it cannot be written.
    """
    if target.is_file():
        return target
    split_url(url, "the download's URL", "downloads do not use them")
    wanted = _Wanted(url, target, size, checksum, most, key, on_progress)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with _alone(wanted) as part:
        if target.is_file():  # another process was faster
            return target
        stated = RETRIES.call(lambda: asyncio.run(_transfer(wanted, part)), headway=lambda: _size(part), sleep=pause)
        _verify(wanted, part, stated)
        with writing(target):
            wanted.part.rename(target)
    return target


@contextmanager
def _alone(wanted: _Wanted) -> Iterator[BufferedRandom]:
    """The partial file, locked so that no other process writes to it. Removed at the end if it is empty."""
    with writing(wanted.part):
        part = wanted.part.open("a+b")
    with part:
        try:
            with writing(wanted.part):
                fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileError as error:
            if isinstance(error.__cause__, BlockingIOError):
                raise InputError(f"another process is downloading {wanted.target}: wait for it") from None
            raise
        try:
            yield part
        finally:
            if wanted.part.exists() and not _size(part):
                wanted.part.unlink()


def _size(part: BufferedRandom) -> int:
    return part.seek(0, 2)


async def _transfer(wanted: _Wanted, part: BufferedRandom) -> str | None:
    """Appends the missing bytes. Returns the expected checksum, if known."""
    limits = Limits(total=_WINDOW)
    host = split_url(wanted.url, "the download's URL", "downloads do not use them").hostname or ""
    async with http_client(host, limits) as http:
        with connected(limits.connect, _WINDOW, wanted.failure):
            checksum = wanted.checksum or await _stated_checksum(http, wanted)
            done = _size(part)
            if done and checksum is None:
                part.truncate(done := 0)  # nothing would show that the rest belongs to another file
            if not wanted.size or done < wanted.size:
                await _append(http, wanted, part, done)
    return checksum


async def _append(http: "httpx.AsyncClient", wanted: _Wanted, part: BufferedRandom, done: int) -> None:
    headers = {"Range": f"bytes={done}-"} if done else {}
    async with asyncio.timeout(_ANSWER):
        response = await _followed(http, wanted, headers)
    try:
        if response.status_code == 416 and done:  # the file is complete
            return
        if response.status_code not in (200, 206):
            raise _status_failure(wanted, response)
        done = _start(response, done)
        with writing(wanted.part):
            part.truncate(done)
        length = int(response.headers.get("Content-Length") or 0)
        await _write(response, wanted, part, done, done + length if length else wanted.size)
    finally:
        await response.aclose()


def _start(response: "httpx.Response", asked: int) -> int:
    """The offset of the response's first byte in the file."""
    if response.status_code == 200:
        return 0
    stated = re.match(r"bytes (\d{1,18})-", response.headers.get("Content-Range", ""))
    return min(int(stated[1]), asked) if stated else asked


async def _write(response: "httpx.Response", wanted: _Wanted, part: BufferedRandom, done: int, total: int) -> None:
    most = wanted.size or wanted.most
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(_WINDOW) as window:
        arrived = 0
        async for piece in response.aiter_raw():
            arrived += len(piece)
            done += len(piece)
            if done > most:
                part.truncate(0)
                raise wanted.failure(f"sent more than {most:,} bytes")
            with writing(wanted.part, "the downloaded part is kept; run the same command again to resume"):
                part.write(piece)
                part.flush()
            wanted.on_progress(done, total)
            if arrived >= _WINDOW_BYTES:
                arrived = 0
                window.reschedule(loop.time() + _WINDOW)
    if done < total:
        raise wanted.failure(f"ended its transfer after {done:,} of {total:,} bytes", transient=True)


async def _followed(http: "httpx.AsyncClient", wanted: _Wanted, headers: dict[str, str]) -> "httpx.Response":
    url = wanted.url
    for _ in range(_REDIRECTS + 1):
        request = http.build_request("GET", url, headers={**headers, **wanted.headers(url)})
        response = await http.send(request, stream=True)
        location = response.headers.get("Location")
        if not (300 <= response.status_code < 400 and location):
            return response
        await response.aclose()
        try:
            url = urljoin(url, location)
            split_url(url, "a redirect's URL", "downloads do not use them")
        except (ValueError, InputError):
            raise wanted.failure("redirects to a malformed URL") from None
    raise wanted.failure(f"redirects more than {_REDIRECTS} times")


async def _stated_checksum(http: "httpx.AsyncClient", wanted: _Wanted) -> str | None:
    """The checksum that Hugging Face sends for a large file before it redirects."""
    async with asyncio.timeout(_ANSWER):
        answer = await http.head(wanted.url, headers=wanted.headers(wanted.url))
    if is_transient(answer.status_code):
        raise _status_failure(wanted, answer)
    digest = answer.headers.get("X-Linked-Etag", "").strip('"')
    return f"sha256:{digest}" if re.fullmatch("[0-9a-f]{64}", digest) else None


def _status_failure(wanted: _Wanted, answer: "httpx.Response") -> ServiceError:
    status = answer.status_code
    asked = retry_after(answer.headers)
    return wanted.failure(f"answered with status {status}", transient=is_transient(status), retry_after=asked)


def _verify(wanted: _Wanted, part: BufferedRandom, checksum: str | None) -> None:
    """Raises `ServiceError`, and removes the file, if it is not the published one."""
    size = _size(part)
    problem = f"has {size:,} bytes instead of {wanted.size:,}" if wanted.size not in (0, size) else ""
    if checksum and not problem:
        algorithm, _, expected = checksum.partition(":")
        part.seek(0)
        if hashlib.file_digest(part, algorithm).hexdigest() != expected:
            problem = f"does not have the {algorithm} {expected}"
    if problem:
        part.truncate(0)
        wanted.part.unlink()
        raise wanted.failure(f"{problem}: the transfer was corrupted; download it again")
