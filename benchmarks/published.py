"""Functions of other projects' programs, loaded from the user's checkout during a comparison.

This repository has no copy of those programs. A program is parsed and only its standard-library imports and the
requested functions and classes are executed, so that its other dependencies need not be installed.
"""

import ast
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def parsed(file: Path) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some contain invalid escapes
        return ast.parse(file.read_text("utf-8"), str(file))


def definitions(file: Path, names: Sequence[str] = (), **given: Any) -> dict[str, Any]:
    """The namespace of a program's functions and classes: those named, or all. `given` replaces its imports."""
    space: dict[str, Any] = {"json": json, "__name__": file.stem, **given}
    for node in parsed(file).body:
        wanted = isinstance(node, ast.FunctionDef | ast.ClassDef) and (not names or node.name in names)
        if wanted or _is_standard_import(node):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                run(node, space)
    missing = set(names) - set(space)
    if missing:
        raise SystemExit(f"{file} does not define {', '.join(sorted(missing))}: is it the right checkout?")
    return space


def run(node: ast.stmt, space: dict[str, Any]) -> None:
    """Executes one statement of a program in a namespace."""
    module = ast.fix_missing_locations(ast.Module([node], []))
    exec(compile(module, "<published>", "exec"), space)  # the user's own checkout, which the user asked to run


def _is_standard_import(node: ast.stmt) -> bool:
    if isinstance(node, ast.Import):
        return all(alias.name.partition(".")[0] in sys.stdlib_module_names for alias in node.names)
    return isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in sys.stdlib_module_names
