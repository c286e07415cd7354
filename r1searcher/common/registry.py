"""Extension points by name: built-in entries, and those that other packages declare as entry points.

    RETRIEVERS: Registry[type[EngineSettings]] = Registry(
        "retriever", "r1searcher.retrievers", {"bm25": "r1searcher.retrieval.engines.bm25:Settings"}
    )

Another package adds an entry in its own `pyproject.toml`, without changes to this package:

    [project.entry-points."r1searcher.retrievers"]
    mine = "my_package.retriever:Settings"

A built-in entry is a value, or "module:attribute" if importing it takes time. Metadata of installed packages is read
only when a name is not built in, or when all names are requested.
"""

import difflib
import importlib
from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from r1searcher.errors import InputError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Entries by name: built-in ones first, in their order, then those of the entry-point group `group`.

    `noun` names the kind of entry in messages. Indexing and iterating raise `InputError` for an entry point that
    cannot be imported, that is not a `type_`, that has the name of a built-in entry, or, where entries are `named`,
    whose value has another `name`.
    """

    def __init__(
        self, noun: str, group: str, builtin: Mapping[str, T | str], type_: Any = object, *, named: bool = False
    ) -> None:
        self.noun = noun
        self.group = group
        self.type_ = type_
        self.named = named
        self._builtin = dict(builtin)
        self._loaded: dict[str, T] = {}

    @property
    def builtin(self) -> tuple[str, ...]:
        """The built-in names; does not read metadata."""
        return tuple(self._builtin)

    def __getitem__(self, name: str) -> T:
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._builtin
        yield from self._entry_points

    def __len__(self) -> int:
        return len(self._builtin) + len(self._entry_points)

    def __contains__(self, name: object) -> bool:
        return name in self._builtin or name in self._entry_points

    def require(self, name: str, setting: str = "") -> T:
        """The entry of that name. Raises `InputError` with the valid values, after the name of the setting if given."""
        if name in self:
            return self[name]
        close = difflib.get_close_matches(name, list(self), 1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        where = f"{setting}: " if setting else ""
        raise InputError(f"{where}there is no {self.noun} {name[:100]!r}{hint}; choose one of {', '.join(self)}")

    @cached_property
    def _entry_points(self) -> "dict[str, EntryPoint]":
        found: dict[str, EntryPoint] = {}
        for entry in _installed().select(group=self.group):
            if entry.name in self._builtin or (entry.name in found and entry.value != found[entry.name].value):
                both = f"the {self.noun} {entry.name!r} (one is {_package(entry)})"
                raise InputError(f"two packages define {both}: uninstall one of them")
            found[entry.name] = entry
        return dict(sorted(found.items()))

    def _load(self, name: str) -> T:
        if name in self._builtin:
            value = self._builtin[name]
            return _imported(value) if isinstance(value, str) else value
        if name not in self._entry_points:
            raise KeyError(name)
        entry = self._entry_points[name]
        shown = f"the {self.noun} {name!r} of {_package(entry)}"
        try:
            value = entry.load()
        except Exception as error:  # the other package may raise anything at import
            reason = f"{type(error).__name__}: {error}"
            raise InputError(f"{shown} cannot be imported ({entry.value}): {reason}") from error
        if not isinstance(value, self.type_):
            found = f"{entry.value} is of type {type(value).__name__}"
            raise InputError(f"{shown} must be of type {self.type_.__name__}, and {found}")
        if self.named and value.name != name:
            raise InputError(f"the {self.noun} {value.name!r} has the entry point {name!r}: give both the same name")
        return cast(T, value)


@cache
def _installed() -> Any:
    """The entry points of all installed packages, read once for all registries: an object with `select(group=…)`."""
    from importlib.metadata import entry_points

    return entry_points()


def _imported(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _package(entry: "EntryPoint") -> str:
    return f"the package {entry.dist.name}" if entry.dist is not None else f"the entry point {entry.value}"
