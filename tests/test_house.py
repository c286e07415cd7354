"""The house's rules: which room may import what, and how fast the door opens."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "r1searcher"
HEAVY = {"torch", "ray", "vllm", "openrlhf", "deepspeed"}
LIGHT_ROOMS = ("config", "corpora", "episodes", "questions", "retrieval", "rewards", "runs")


def imported(file: Path, everywhere: bool) -> set[str]:
    """Top-level names of the packages that a module imports: anywhere in it, or only when it is imported itself."""
    tree = ast.parse(file.read_text("utf-8"))
    nodes = ast.walk(tree) if everywhere else tree.body
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("room", LIGHT_ROOMS)
def test_light_rooms_never_import_the_engine(room: str) -> None:
    files = list((PACKAGE / room).rglob("*.py"))
    assert files
    for file in files:
        assert not imported(file, everywhere=True) & HEAVY, file


@pytest.mark.parametrize("module", ["r1searcher.cli", "r1searcher.stages.chain", "r1searcher.evaluation.scoring"])
def test_what_commands_load_first_loads_nothing_heavy(module: str) -> None:
    heavy = HEAVY | {"transformers", "elasticsearch", "pyarrow", "matplotlib", "tantivy", "datasets"}
    wanted = heavy if module == "r1searcher.cli" else HEAVY
    code = f"import sys, {module}; print(*sorted({wanted!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_command_explains_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "r1searcher.cli", "--help"], capture_output=True, text=True, check=True
    )
    for command in ("index-corpus", "search", "serve", "recall", "stage1", "stage2", "train", "demo", "sft", "init"):
        assert command in done.stdout
