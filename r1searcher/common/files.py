"""Files: read with one sentence per failure, written whole or not at all, JSON lines, the cache folder."""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn, cast

from r1searcher.errors import FileError, InputError

_CAUSES: Mapping[int, str] = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "your disk quota is used up: free some space",
    errno.EFBIG: "the file would be larger than is allowed here",
    errno.EACCES: "permission denied: choose another location or change the permissions",
    errno.EPERM: "permission denied: choose another location or change the permissions",
    errno.EROFS: "the file system is read-only: choose another location",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
    errno.EMFILE: "too many files are open: raise the limit with `ulimit -n`",
    errno.EIO: "the disk reports an error",
}


def cause_of(error: OSError) -> str:
    """Why a file operation failed, and the remedy where there is one."""
    return _CAUSES.get(error.errno or 0) or (error.strerror or str(error)).lower()


def is_environment(error: OSError) -> bool:
    """Whether the machine refused (disk, permission, limits), and not a mistake of this program."""
    return error.errno in _CAUSES


@contextmanager
def writing(path: Path | str, then: str = "") -> Iterator[None]:
    """Turns an `OSError` inside into a `FileError` about `path`. `then` says what was kept or how to go on."""
    try:
        yield
    except OSError as error:
        raise FileError(f"{path} cannot be written: {cause_of(error)}{'; ' if then else ''}{then}") from error


def read_bytes(path: Path, what: str) -> bytes:
    """The content of a regular file. `what` names it in errors ("the settings file").

    Raises `InputError` where there is no such file, or it is a folder or a pipe, and `FileError` where reading fails.
    """
    try:
        _require_regular(path, what)
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        _refuse(error, path, what)


def read_text(path: Path, what: str) -> str:
    """The same as UTF-8 text, without a byte order mark. Raises `InputError` also for other encodings."""
    return decode(read_bytes(path, what), path, what)


def decode(data: bytes, path: Path, what: str) -> str:
    """The content of a file as UTF-8 text, without a byte order mark. Raises `InputError` for other encodings."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{what} {path} is not UTF-8 text (byte {error.start + 1})") from None


def read_lines(path: Path, what: str) -> Iterator[str]:
    """The lines of a regular file of UTF-8 text, one at a time, without their line feeds. Lone surrogates are kept.

    Raises as `read_text` does, and names the line where the file stops being UTF-8.
    """
    try:
        _require_regular(path, what)
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                data = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                try:
                    yield data.decode("utf-8", "surrogatepass").removesuffix("\n")
                except UnicodeDecodeError as error:
                    raise InputError(f"{path}:{number} is not UTF-8 text (byte {error.start + 1})") from None
    except (OSError, ValueError) as error:
        _refuse(error, path, what)


def _require_regular(path: Path, what: str) -> None:
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise InputError(f"{what} {path} is {kind}: give a file")


def _refuse(error: OSError | ValueError, path: Path, what: str) -> NoReturn:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise InputError(f"{what} {path} does not exist") from None
    if isinstance(error, OSError) and error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
        raise FileError(f"{what} {path} cannot be read: {cause_of(error)}") from None
    raise InputError(f"{what} {str(path)[:100]!r} cannot be read: this is not a valid file name") from None


def split_lines(text: str) -> list[str]:
    """Lines that end at a line feed. `str.splitlines` would also cut at U+2028 and others, which JSON may hold."""
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def parse_json(text: str | bytes) -> Any:
    """JSON from outside. Raises `ValueError` with a reason, also for nesting and integers beyond what Python reads.

    NaN and Infinity are refused: JSON does not have them, and they would poison every mean.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode(json.detect_encoding(text), "surrogatepass")
        return _DECODER.decode(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise ValueError(json_problem(error)) from None


def json_problem(error: BaseException) -> str:
    """Why a text could not be read as JSON, in a few words."""
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} at character {error.pos + 1}"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 at byte {error.start + 1}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return "a number is too long" if "integer string" in str(error) else str(error)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def open_log(path: Path, mode: Literal["ab", "wb"]) -> BinaryIO:
    """A file to be written as something goes on. Raises `FileError`."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return cast(BinaryIO, path.open(mode))


def write_bytes(path: Path, data: bytes, *, durable: bool = False, then: str = "") -> None:
    """Write a file whole or not at all; `durable`: its content is on the disk before it has its name.

    Raises `FileError`, with `then` as in `writing`.
    """
    part = path.with_name(path.name + ".part")
    with writing(path, then):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(data)
            if durable:
                sync(part)
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8", "surrogatepass"))


def write_json(path: Path, value: Any, *, durable: bool = False, then: str = "") -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode("utf-8", "surrogatepass"), durable=durable, then=then)


def sync(path: Path) -> None:
    """Have the disk hold a file's content, or a folder's names, before going on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append one JSON line in a single write, so that rows of several processes never mix. Raises `FileError`."""
    data = (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            if os.write(descriptor, data) != len(data):  # a disk that fills up cuts the write short
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL file of ours; nothing if it is not there. A last line cut by a crash is left out.

    Raises `InputError` for a damaged row, by its line.
    """
    if not path.exists():
        return
    with _reading(path) as lines:
        for number, line in enumerate(lines, 1):
            if line.endswith(b"\n"):
                yield _row(line, path, number)


@contextmanager
def _reading(path: Path) -> Iterator[BufferedReader]:
    """A file of ours, opened. Raises `InputError` where it is a folder or a pipe, `FileError` where reading fails."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path} is not a regular file: restore it, or remove it")
        with path.open("rb") as handle:
            yield handle
    except OSError as error:
        _refuse(error, path, "the file")


def _row(line: bytes, path: Path, number: int | None) -> dict[str, Any]:
    try:
        row = parse_json(line.decode("utf-8", "surrogatepass"))
        if not isinstance(row, dict):
            raise ValueError("not a JSON object")
        return row
    except ValueError as error:  # UnicodeDecodeError among them
        where = f"line {number}" if number else "its last line"
        raise InputError(f"{path} is damaged ({where}: {error}): restore it, or remove that line") from None


def last_row(path: Path) -> dict[str, Any] | None:
    """The last whole row of a JSONL file, without reading the rest; None where there is none."""
    if not path.exists():
        return None
    with _reading(path) as handle:
        size = handle.seek(0, os.SEEK_END)
        block = 1 << 14
        while True:
            start = max(0, size - block)
            handle.seek(start)
            lines = handle.read(size - start).split(b"\n")
            whole = lines[:-1] if start == 0 else lines[1:-1]
            if whole:
                return _row(whole[-1], path, None)
            if start == 0:
                return None
            block *= 4


def lines_in(file: Path) -> int:
    """Lines of a file; 0 where it is not there."""
    if not file.is_file():
        return 0
    with file.open("rb") as lines:
        return sum(1 for _ in lines)


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with _reading(path) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def cache_folder(*parts: str) -> Path:
    """A folder below r1s's cache: R1S_CACHE, else XDG_CACHE_HOME/r1searcher, else ~/.cache/r1searcher."""
    if ours := os.environ.get("R1S_CACHE"):
        root = Path(ours)
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "r1searcher"
    return root.joinpath(*parts)
