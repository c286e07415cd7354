"""What is true on one node of a cluster. Ray sends these functions by value: the node may lack this package.

They need the standard library alone, and answer in JSON types.
"""

import os
import platform
import shutil
import socket
from importlib import metadata
from pathlib import Path
from typing import Any

SYS_PTRACE = 19
"""Bit of CAP_SYS_PTRACE in a process's capabilities (capability.h of Linux)."""


def facts(folder: str, token: str, node: str, model: str, executor: str, packages: list[str]) -> dict[str, Any]:
    """The fields of `problems.NodeFacts` that are known without any package.

    `folder` has a file named `token`, with `token` in it; the reply is a file next to it, named `token.node`.
    """
    return {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "packages": {name: version for name in packages if (version := version_of(name)) is not None},
        "reads": reads(Path(folder, token), token),
        "writes": writes(Path(folder, f"{token}.{node}"), token),
        "model_files": sizes(Path(model)),
        "has_executor": Path(executor).is_file(),
        "memory": machine_memory(),
        "temporary_share_used": share_used(os.environ.get("RAY_TMPDIR", "/tmp")),
        "may_share_gpu_memory": may_share_gpu_memory(),
    }


def machine_memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def version_of(package: str) -> str | None:
    """The installed version; None if there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def reads(file: Path, token: str) -> bool:
    """Whether the file that another machine wrote is here."""
    try:
        return file.read_text("utf-8") == token
    except OSError:
        return False


def writes(file: Path, token: str) -> str:
    """Writes a file for the other machine; returns why that failed, empty if it did not."""
    try:
        file.write_text(token, "utf-8")
    except OSError as error:
        return error.strerror or str(error)
    return ""


def sizes(folder: Path) -> dict[str, int]:
    """The files of a folder with their bytes; none if it cannot be read."""
    try:
        return {file.name: file.stat().st_size for file in folder.iterdir() if file.is_file()}
    except OSError:
        return {}


def share_used(folder: str) -> float:
    """Which part of the file system of `folder` is used, 0 to 1."""
    try:
        disk = shutil.disk_usage(folder)
    except OSError:
        return 0.0
    return 1 - disk.free / disk.total


def may_share_gpu_memory(proc: Path = Path("/proc")) -> bool:
    """Whether processes here may pass on GPU memory: `kernel.yama.ptrace_scope` is 0, or this process is privileged."""
    try:
        scope = int((proc / "sys/kernel/yama/ptrace_scope").read_text())
    except (OSError, ValueError):  # a kernel without Yama
        return True
    return scope == 0 or (scope < 3 and bool(capabilities(proc) >> SYS_PTRACE & 1))


def capabilities(proc: Path) -> int:
    """The effective capabilities of this process."""
    try:
        lines = (proc / "self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)
