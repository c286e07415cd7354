"""A package of somebody else's, as a test installs it: its modules and the entry points that it declares.

    where = extension.install(tmp_path, {"mine": source}, {"r1searcher.retrievers": {"mine": "mine:Mine"}})
    extension.r1s(["search", "mine:anything", "query"], where)      # the command in a process that sees the package

It is written as `pip install --target` would write it: modules next to a `.dist-info` folder. Nothing of the repository
changes.
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
_BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def install(
    folder: Path, modules: Mapping[str, str], entry_points: Mapping[str, Mapping[str, str]], name: str = "stranger"
) -> Path:
    """Write modules (name -> source) and entry points (group -> name -> "module:attribute"). Returns `folder`, which is
    to be imported from."""
    folder.mkdir(parents=True, exist_ok=True)
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source, "utf-8")
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", "utf-8")
    lines = []
    for group, entries in entry_points.items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in entries.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n", "utf-8")
    return folder


def blocks(heading: str, document: Path = CONTRIBUTING) -> dict[str, str]:
    """The code blocks below a heading of a document: language, or the title where it has one, -> text.

    A block has a title where it begins with ```python title="name.py".
    """
    text = document.read_text("utf-8")
    match = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    assert match, f"{document.name} has no heading {heading!r}"
    rest = text[match.end() :]
    end = re.search(rf"^#{{1,{len(match[1])}}} ", rest, re.MULTILINE)
    found = _BLOCK.findall(rest[: end.start()] if end else rest)
    return {title or language: code for language, title, code in found}


def code_lines(source: str) -> int:
    """Lines of a source that are neither empty nor a comment."""
    return sum(1 for line in source.splitlines() if line.strip() and not line.strip().startswith("#"))


def environment(where: Path) -> dict[str, str]:
    """The environment of a process that sees the package in `where` and this repository."""
    already = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(where), str(ROOT), *already])}


def r1s(arguments: Sequence[object], where: Path, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Run `r1s` with the package installed."""
    return _run(["-m", "r1searcher.cli", *map(str, arguments)], where, cwd)


def python(
    code: str, where: Path, arguments: Sequence[object] = (), cwd: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a Python program with the package installed."""
    return _run(["-c", code, *map(str, arguments)], where, cwd)


def _run(words: Sequence[str], where: Path, cwd: Path | None) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, *words]
    return subprocess.run(command, env=environment(where), cwd=cwd, capture_output=True, text=True, check=False)


def finished(done: "subprocess.CompletedProcess[str]") -> str:
    """The output of a process that succeeded."""
    assert done.returncode == 0, done.stderr
    return done.stdout
