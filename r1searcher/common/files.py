"""Files: reading with one sentence per failure, atomic writing, JSON lines, the cache folder."""

import errno
import hashlib
import json
import os
import stat
import tomllib
import uuid
from collections.abc import Iterable, Iterator, Mapping
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
    """Why a file operation failed, and how to fix it if that is known."""
    return _CAUSES.get(error.errno or 0) or (error.strerror or str(error)).lower()


def is_environment(error: OSError) -> bool:
    """Whether the machine caused the error (disk, permission, limits), as opposed to a bug in this program."""
    return error.errno in _CAUSES


@contextmanager
def writing(path: Path | str, then: str = "") -> Iterator[None]:
    """Turns an `OSError` inside into a `FileError` about `path`. `then` says what was kept or how to continue."""
    try:
        yield
    except OSError as error:
        raise FileError(f"{path} cannot be written: {cause_of(error)}{'; ' if then else ''}{then}") from error


def read_bytes(path: Path, what: str) -> bytes:
    """The content of a regular file. `what` names it in errors ("the settings file").

    Raises `InputError` if the file does not exist or is a folder or a pipe, and `FileError` if reading fails.
    """
    try:
        _require_regular(path, what)
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        _refuse(error, path, what)


def read_text(path: Path, what: str) -> str:
    """Like `read_bytes`, as UTF-8 text without a byte order mark. Also raises `InputError` for other encodings."""
    return decode(read_bytes(path, what), path, what)


def decode(data: bytes, path: Path, what: str) -> str:
    """The content of a file as UTF-8 text, without a byte order mark. Raises `InputError` for other encodings."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{what} {path} is not UTF-8 text (byte {error.start + 1})") from None


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The tables of a TOML file. Raises the same errors as `read_text`, and `InputError` for what is not TOML."""
    text = read_text(path, what)
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise InputError(f"{what} {path} is not valid TOML: it is nested too deeply") from None
    except ValueError as error:  # includes tomllib's own; another one for an integer of thousands of digits
        reason = "an integer is too long" if "integer string" in str(error) else error
        raise InputError(f"{what} {path} is not valid TOML: {reason}") from None


def read_lines(path: Path, what: str) -> Iterator[str]:
    """The lines of a regular file of UTF-8 text, one at a time, without their line feeds. Lone surrogates are kept.

    Raises the same errors as `read_text`, and names the first line that is not UTF-8.
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
    """Lines that end at a line feed. `str.splitlines` would also split at U+2028 and others, which JSON may contain."""
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def parse_json(text: str | bytes) -> Any:
    """Untrusted JSON. Raises `ValueError` with a reason, also for nesting and integers beyond Python's limits.

    NaN and Infinity are rejected: they are not JSON, and would corrupt every mean.
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
    """A file open for incremental writing. Raises `FileError`."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return cast(BinaryIO, path.open(mode))


def last_line(log: Path) -> str:
    """The last line of a log that is not blank, without spaces around it; empty if there is none."""
    lines = log.read_bytes().decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def write_bytes(path: Path, data: bytes, *, durable: bool = False, then: str = "") -> None:
    """Write a file atomically, also where several processes write it; `durable`: its content is synced to disk before
    it gets its name.

    Raises `FileError`, with `then` as in `writing`.
    """
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")
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


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSONL file whole or not at all. Raises `FileError`."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def sync(path: Path) -> None:
    """Sync a file's content, or a folder's entries, to disk."""
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
            if os.write(descriptor, data) != len(data):  # a full disk truncates the write
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of one of our JSONL files; none if the file does not exist. A last line cut by a crash is skipped.

    Raises `InputError` for a damaged row, with its line.
    """
    if not path.exists():
        return
    with _reading(path) as lines:
        for number, line in enumerate(lines, 1):
            if line.endswith(b"\n"):
                yield _row(line, path, number)


@contextmanager
def _reading(path: Path) -> Iterator[BufferedReader]:
    """Opens one of our files. Raises `InputError` if it is a folder or a pipe, `FileError` if reading fails."""
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
    except ValueError as error:  # includes UnicodeDecodeError
        where = f"line {number}" if number else "its last line"
        raise InputError(f"{path} is damaged ({where}: {error}): restore it, or remove that line") from None


def last_row(path: Path) -> dict[str, Any] | None:
    """The last complete row of a JSONL file, without reading the rest; None if there is none."""
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


class LineCounter:
    """Counts the lines of files that grow. Each count reads only what was added after the one before."""

    def __init__(self) -> None:
        self._counted: dict[Path, tuple[int, int]] = {}  # bytes read, and lines in them

    def count(self, files: Iterable[Path]) -> int:
        """Lines of all `files` together; one that is missing has none, one that became shorter is read again."""
        before, self._counted = self._counted, {}
        for file in files:
            size, lines = before.get(file, (0, 0))
            try:
                with file.open("rb") as handle:
                    if handle.seek(0, os.SEEK_END) < size:
                        size = lines = 0
                    handle.seek(size)
                    while block := handle.read(1 << 20):
                        size, lines = size + len(block), lines + block.count(b"\n")
            except FileNotFoundError:
                continue
            self._counted[file] = size, lines
        return sum(lines for _, lines in self._counted.values())


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


def nearest_folder(path: Path) -> Path:
    """`path` if it is a folder, or else the nearest one that it will be in."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def cache_folder(*parts: str) -> Path:
    """A folder in the r1s cache: R1S_CACHE, or XDG_CACHE_HOME/r1searcher, or ~/.cache/r1searcher."""
    if ours := os.environ.get("R1S_CACHE"):
        root = Path(ours)
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "r1searcher"
    return root.joinpath(*parts)
