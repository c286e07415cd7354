"""The architecture's rules: which package may import what, what the command line loads, who writes to a terminal."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from r1searcher.episodes.protocol import PROTOCOLS, EpisodeProtocol

PACKAGE = Path(__file__).parents[1] / "r1searcher"
HEAVY = {"torch", "ray", "vllm", "openrlhf", "deepspeed"}
NEURAL = PACKAGE / "retrieval" / "neural"
"""Models that retrieval runs itself: torch is imported when one of them is opened."""

LIGHT_PACKAGES = ("config", "corpora", "episodes", "questions", "report", "retrieval", "rewards", "runs", "watch")


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


@pytest.mark.parametrize("package", LIGHT_PACKAGES)
def test_light_packages_never_import_the_engine(package: str) -> None:
    files = list((PACKAGE / package).rglob("*.py"))
    assert files
    for file in files:
        assert not imported(file, everywhere=NEURAL not in file.parents) & HEAVY, file


@pytest.mark.parametrize("module", ["r1searcher.cli", "r1searcher.stages.chain", "r1searcher.evaluation.scoring"])
def test_what_commands_load_first_loads_nothing_heavy(module: str) -> None:
    heavy = HEAVY | {"transformers", "elasticsearch", "pyarrow", "matplotlib", "tantivy", "datasets"}
    wanted = heavy if module == "r1searcher.cli" else HEAVY
    code = f"import sys, {module}; print(*sorted({wanted!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


TERMINAL = PACKAGE / "common" / "terminal.py"
WRITERS = {"print", "typer.echo", "typer.secho", "sys.stdout.write", "sys.stderr.write"}
MARKUP = {"Console", "TextColumn", "Progress", "Text.from_markup", "rich.print"}
"""What takes markup, or a stream, by default."""


def calls(file: Path) -> list[tuple[str, ast.Call]]:
    """Every call in a module with its dotted name."""
    tree = ast.parse(file.read_text("utf-8"))
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def is_constant(call: ast.Call) -> bool:
    return all(isinstance(argument, ast.Constant) for argument in call.args)


@pytest.mark.parametrize(
    "file", sorted(set(PACKAGE.rglob("*.py")) - {TERMINAL}), ids=lambda f: str(f.relative_to(PACKAGE))
)
def test_only_one_module_writes_to_the_terminal(file: Path) -> None:
    """Text from outside passes `common.terminal`, which shows control characters and interprets no markup."""
    for name, call in calls(file):
        assert name not in MARKUP, f"{file}:{call.lineno}: use common.terminal.console, label and progress"
        assert name not in WRITERS or is_constant(call), f"{file}:{call.lineno}: use common.terminal.text_line"
        assert name != "Text" or is_constant(call), f"{file}:{call.lineno}: use common.terminal.outside"


PROTOCOL_MODULES = PACKAGE / "episodes" / "protocols"


def literals(tree: ast.Module) -> list[ast.Constant]:
    """Every string of a module but docstrings."""
    documented = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    strings = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return [node for node in strings if id(node) not in documented]


@pytest.mark.parametrize(
    "file",
    sorted(file for file in PACKAGE.rglob("*.py") if PROTOCOL_MODULES not in file.parents),
    ids=lambda file: str(file.relative_to(PACKAGE)),
)
def test_only_a_protocol_knows_its_tags(file: Path) -> None:
    """Everything else takes them from the episode's protocol, or from the object of the one that it is written for."""
    tags = {tag for name in PROTOCOLS.builtin for tag in PROTOCOLS[name].tags}
    names = {name for tag in tags if "_" in (name := tag.strip("</|>"))}  # without brackets: begin_of_query
    tree = ast.parse(file.read_text("utf-8"))
    for node in literals(tree):
        assert not any(text in node.value for text in tags | names), f"{file}:{node.lineno}: {node.value!r} has a tag"
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("r1searcher.episodes.protocols"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                found = getattr(module, alias.name)
                assert isinstance(found, EpisodeProtocol), (
                    f"{file}:{node.lineno}: import the protocol, not {alias.name}"
                )


LONGEST_FUNCTION = 60
"""Lines from `def` to the last one."""

FOLDERS = ("r1searcher", "tests", "benchmarks", "scripts", "examples")


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_function_is_too_long(folder: str) -> None:
    files = sorted((PACKAGE.parent / folder).rglob("*.py"))
    assert files
    for file in files:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                lines = node.end_lineno - node.lineno + 1
                assert lines <= LONGEST_FUNCTION, f"{file}:{node.lineno}: {node.name} has {lines} lines"


@pytest.mark.parametrize("file", sorted((PACKAGE.parent / "benchmarks").glob("*.py")), ids=lambda f: f.name)
def test_benchmarks_import_modules_that_exist(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("r1searcher"):
            path = PACKAGE.parent / str(node.module).replace(".", "/")
            assert path.with_suffix(".py").is_file() or path.is_dir(), f"{file.name}:{node.lineno}: {node.module}"


NAMES_OF_OTHERS = {"benchmarks", "samples", "example", "build_utils"}
"""Top-level names that packages of the GPU environment install: flashinfer-python, nvidia-ml-py, pynvvideocodec."""


@pytest.mark.parametrize("folder", FOLDERS)
def test_nothing_imports_a_name_that_a_gpu_package_installs_too(folder: str) -> None:
    for file in sorted((PACKAGE.parent / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                imported = [str(node.module)]
            found = {name.partition(".")[0] for name in imported} & NAMES_OF_OTHERS
            assert not found, f"{file}:{node.lineno}: {found} is another package's where that is installed"
