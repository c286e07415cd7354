"""Built-in entries and those of another package, in a process that has that package."""

from pathlib import Path

import pytest

from r1searcher.common.registry import Registry
from r1searcher.errors import InputError
from tests import extension

SHAPES = 'Registry("shape", "r1searcher.test_shapes", {"circle": 1, "join": "os.path:join"})'


def _said(code: str, where: Path) -> str:
    program = f"from r1searcher.common.registry import Registry\nshapes = {SHAPES}\n{code}"
    done = extension.python(program, where)
    return (done.stdout + done.stderr).strip()


def test_a_built_in_entry_is_a_value_or_is_imported() -> None:
    shapes: Registry[object] = Registry("shape", "r1searcher.test_shapes", {"circle": 1, "join": "os.path:join"})
    assert shapes["circle"] == 1
    assert shapes["join"] is __import__("os").path.join
    assert list(shapes) == ["circle", "join"] == list(shapes.builtin)
    assert "square" not in shapes
    with pytest.raises(KeyError):
        shapes["square"]


def test_an_unknown_name_is_answered_with_the_nearest_and_all() -> None:
    shapes: Registry[object] = Registry("shape", "r1searcher.test_shapes", {"circle": 1, "line": 2})
    with pytest.raises(InputError) as error:
        shapes.require("circel", "draw.shape")
    assert str(error.value) == (
        "draw.shape: there is no shape 'circel' (did you mean 'circle'?); choose one of circle, line"
    )


def test_another_package_adds_an_entry(tmp_path: Path) -> None:
    where = extension.install(tmp_path, {"mine": "square = 4\n"}, {"r1searcher.test_shapes": {"square": "mine:square"}})
    assert _said("print(list(shapes), shapes['square'], len(shapes), shapes.builtin)", where) == (
        "['circle', 'join', 'square'] 4 3 ('circle', 'join')"
    )


def test_an_entry_that_cannot_be_imported_is_named_with_its_package(tmp_path: Path) -> None:
    where = extension.install(tmp_path, {"mine": "1 / 0\n"}, {"r1searcher.test_shapes": {"square": "mine:square"}})
    said = _said("shapes['square']", where).splitlines()[-1]
    assert "the shape 'square' of the package stranger cannot be imported (mine:square): ZeroDivisionError: " in said


def test_two_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    where = extension.install(tmp_path, {"mine": "circle = 9\n"}, {"r1searcher.test_shapes": {"circle": "mine:circle"}})
    said = _said("list(shapes)", where).splitlines()[-1]
    assert said.endswith("two packages define the shape 'circle' (one is the package stranger): uninstall one of them")


def test_an_entry_of_another_type_is_refused(tmp_path: Path) -> None:
    group = "r1searcher.test_shapes"
    where = extension.install(tmp_path, {"mine": "square = 'x'\n"}, {group: {"square": "mine:square"}})
    said = _said(f"Registry('shape', {group!r}, {{'circle': 1}}, int)['square']", where).splitlines()[-1]
    assert said.endswith("'square' of the package stranger must be of type int, and mine:square is of type str")


def test_an_entry_of_another_name_is_refused(tmp_path: Path) -> None:
    group = "r1searcher.test_shapes"
    source = "class Shape:\n    name = 'square'\n"
    where = extension.install(tmp_path, {"mine": source}, {group: {"square": "mine:Shape", "cube": "mine:Shape"}})
    shapes = f"Registry('shape', {group!r}, {{'circle': 1}}, named=True)"
    assert _said(f"print({shapes}['square'].name)", where) == "square"
    said = _said(f"{shapes}['cube']", where).splitlines()[-1]
    assert said.endswith("the shape 'square' has the entry point 'cube': give both the same name")
