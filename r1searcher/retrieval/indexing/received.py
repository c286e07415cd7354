"""An index that is being received: files go into a folder, each compared with the list in `checksums.json`."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from r1searcher.common.files import nearest_folder, sha256_of, write_bytes, writing
from r1searcher.errors import InputError
from r1searcher.retrieval.indexing.integrity import CHECKSUMS, Readable, blocks_of, parse_checksums

OnProgress = Callable[[int, int], None]
"""Gets the bytes done and the bytes of the whole index."""


class ReceivedIndex:
    """The files of one index in the folder `work`. Modification times are set to those of the list, so that opening the
    index does not read every file again."""

    def __init__(self, work: Path, checksums: bytes, on_progress: OnProgress) -> None:
        """Raises `ValueError` for a malformed list, and `InputError` if its files do not fit on the disk."""
        self.files = parse_checksums(checksums)
        self._work = work
        self._total = sum(listed.size for listed in self.files.values())
        self._done = 0
        self._missing = set(self.files)
        self._on_progress = on_progress
        there = nearest_folder(work)
        if shutil.disk_usage(there).free < self._total:
            raise InputError(f"{there} does not have enough space for {self._total:,} bytes: free some.")
        write_bytes(work / CHECKSUMS, checksums)

    def path(self, name: str) -> Path:
        """Where a missing file belongs. Raises `ValueError` for any other name."""
        if name not in self._missing:
            what = "is there twice" if name in self.files else f"is not in {CHECKSUMS}"
            raise ValueError(f"{name[:100]!r} {what}")
        path = self._work / name
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, name: str, stream: Readable, size: int) -> None:
        """Raises `ValueError` if the next `size` bytes of the stream are not the listed file."""
        path = self.path(name)
        with writing(path):
            file = path.open("xb")
        with file:
            for block in blocks_of(stream, size, name, self.files[name]):
                with writing(path):
                    file.write(block)
                self.progress(file.tell())
        self.accept(name)

    def keep(self, name: str) -> bool:
        """Whether the file is already in its place; a file with another content is removed."""
        path = self.path(name)
        if (
            path.is_file()
            and path.stat().st_size == self.files[name].size
            and sha256_of(path) == self.files[name].sha256
        ):
            self.accept(name)
            return True
        path.unlink(missing_ok=True)
        return False

    def progress(self, received: int) -> None:
        """So much of the current file was received."""
        self._on_progress(self._done + received, self._total)

    def require_all(self) -> None:
        """Raises `ValueError` if a listed file was not received."""
        if self._missing:
            raise ValueError(f"{min(self._missing)} is missing")

    def accept(self, name: str) -> None:
        """The file is in its place, and it was compared with the list."""
        listed = self.files[name]
        with writing(self._work / name):
            os.utime(self._work / name, ns=(listed.modified_ns, listed.modified_ns))
        self._missing.remove(name)
        self._done += listed.size
        self.progress(0)
