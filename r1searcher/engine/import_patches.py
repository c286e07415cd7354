"""Replaces names of another package right after its module is imported, without changing its files.

A `Patch` names the module it waits for and every name it replaces, so that a release that moved one of them fails with
a clear error instead of training wrongly. Installing patches does not import anything: idle Ray workers stay small.
"""

import contextlib
import importlib.abc
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from r1searcher.errors import R1Error

Apply = Callable[[ModuleType], None]


@dataclass(frozen=True)
class Patch:
    """`apply(module)` runs after the import of `module`; `around`, if given, is active while the module's body runs."""

    module: str
    replaces: tuple[str, ...]
    apply: Apply | None = None
    around: Callable[[], contextlib.AbstractContextManager[None]] | None = None

    @property
    def reason(self) -> str:
        """Why the patch is needed: the docstring of its function."""
        return ((self.apply or self.around).__doc__ or "").strip()

    def __call__(self, module: ModuleType) -> None:
        if self.apply is not None:
            for name in self.replaces:
                resolve(module, name)
            self.apply(module)


def after_import(patches: list[Patch]) -> Callable[..., Callable[[Apply], Apply]]:
    """A decorator that appends to `patches`: `@after("module", "Name.replaced", …)` above a function of the module."""

    def after(module: str, *replaces: str) -> Callable[[Apply], Apply]:
        def register(apply: Apply) -> Apply:
            patches.append(Patch(module, replaces, apply=apply))
            return apply

        return register

    return after


def resolve(module: ModuleType, name: str) -> Any:
    """The object that the dotted `name` denotes in `module`; raises `R1Error` if there is none."""
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise R1Error(
                f"{module.__name__} has no {name}: r1searcher was not tested with the installed versions; "
                "`scripts/install-training` installs the ones it was tested with"
            ) from None
    return found


class _Finder(importlib.abc.MetaPathFinder):
    """Handles only the modules of registered patches."""

    def __init__(self) -> None:
        self.patches: dict[str, list[Patch]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        patches = self.patches.get(fullname)
        spec = PathFinder.find_spec(fullname, path) if patches else None
        if patches and spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                with contextlib.ExitStack() as stack:
                    for patch in patches:
                        if patch.around is not None:
                            stack.enter_context(patch.around())
                    run(module)
                for patch in patches:
                    patch(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


_finder = _Finder()


def install(patches: Iterable[Patch]) -> None:
    """Register patches, each once. Modules that are already imported are patched now."""
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    for patch in patches:
        waiting = _finder.patches.setdefault(patch.module, [])
        if patch not in waiting:
            waiting.append(patch)
            if patch.module in sys.modules:
                patch(sys.modules[patch.module])
