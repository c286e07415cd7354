"""Processes that wait, and what the kernel says about processes: which they are, CPU time and memory (proc(5))."""

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path


@contextlib.contextmanager
def ready(command: Sequence[str], number: int) -> Iterator[list[int]]:
    """The ids of processes of one command, each of which has printed "ready" and reads its input until they end."""
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for _ in range(number)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield [process.pid for process in processes]
        for process in processes:
            process.communicate("")


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    below = [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]
    return [pid, *(one for child in below for one in tree(child))]


def with_variable(text: str) -> list[int]:
    """The processes that have `text` in their environment, which processes inherit whatever becomes of their parent."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it has ended
            if entry.name.isdigit() and text.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int, files: str = "") -> dict[str, float]:
    """Resident memory of a process: `Rss`, and its parts `Shared` (mapped by others too) and `Private`; `Pss` divides
    each page by the number of processes that map it. With `files`, only mappings of files whose path contains it."""
    found = dict.fromkeys(("Rss", "Pss", "Shared", "Private"), 0.0)
    counted = not files
    for line in Path(f"/proc/{pid}/smaps").read_text("utf-8").splitlines():
        name, _, rest = line.partition(":")
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            counted = files in line
        elif counted and name in ("Rss", "Pss", "Shared_Clean", "Shared_Dirty", "Private_Clean", "Private_Dirty"):
            found[name.partition("_")[0]] += int(rest.split()[0]) / 1024
    return found
