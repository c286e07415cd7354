"""The table of defects in docs/gpu.md: every one is closed by a test that exists, or only a GPU can show it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROW = re.compile(r"\| (\d+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|")
ROWS = [match.groups() for line in (ROOT / "docs/gpu.md").read_text("utf-8").splitlines() if (match := ROW.match(line))]


def test_all_29_defects_are_in_the_table() -> None:
    assert [int(number) for number, *_ in ROWS] == list(range(1, 30))


@pytest.mark.parametrize(("number", "closed"), [(number, tests) for number, _, _, tests in ROWS])
def test_a_defect_is_closed_by_a_test_that_exists(number: str, closed: str) -> None:
    tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", closed)
    assert tests or closed == "open" or "only on a GPU: " in closed
    for file, name in tests:
        tree = ast.parse((ROOT / file).read_text("utf-8"))
        found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in found, f"defect {number}: {file} has no test {name}"
