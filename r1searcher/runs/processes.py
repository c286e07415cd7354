"""The processes of a run's launch on this machine, by a variable of their environment."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

LAUNCH = "R1S_LAUNCH"
"""Environment variable of every process of a launch, with the mark in `launch.json`."""


def processes_of(launch: str) -> Iterator[int]:
    """The ids of the processes of the launch with this mark, without the current one."""
    wanted = f"{LAUNCH}={launch}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):  # it has ended, or we may not read it
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)
