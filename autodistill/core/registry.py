"""One class for everything that has a name in YAML: losses, families, objectives, data sources, engines.

A name is one decorated function. Third parties register through entry points of the group
``autodistill.<kind>`` (e.g. ``autodistill.losses``); a broken plugin is reported when its name is asked for.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import EntryPoint, entry_points
from types import FrameType
from typing import Any, Generic, NamedTuple, TypeVar

from autodistill.core.errors import UnknownNameError, UsageError

T = TypeVar("T")
_PACKAGE = __name__.partition(".")[0]


class Foreign(NamedTuple):
    """A name that code outside this package has registered.

    Attributes:
        module: that registered it.
        group: of its registry.
        name: what it is called there.
    """

    module: str
    group: str
    name: str


_registries: dict[str, Registry[Any]] = {}
_foreign: dict[Foreign, None] = {}


def foreign() -> tuple[Foreign, ...]:
    """All names that code outside this package has registered in this process, the first ones first."""
    return tuple(_foreign)


def register_again(names: Sequence[Foreign]) -> str:
    """Import what has registered ``names`` in another process; returns what is then still missing, else nothing."""
    for one in names:
        if one.module not in sys.modules:
            try:
                importlib.import_module(one.module)
            except Exception as error:  # whatever the user's module raises
                return f"{one.module} cannot be imported: {type(error).__name__}: {error}"
    missing = [one for one in names if one.group not in _registries or one.name not in _registries[one.group]]
    return "".join(f"{one.name!r} is not registered by importing {one.module}" for one in missing[:1])


def _registrar() -> str:
    """The module outside this package that registers now; empty where a module of this package does."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        root = module.partition(".")[0]
        if root != _PACKAGE:
            return "" if root == "importlib" else module  # a module of this package, while it is imported
        frame = frame.f_back
    return ""


class Registry(Generic[T]):
    """Names of one kind, in the order of registration.

    Args:
        kind: the singular noun used in messages, e.g. ``"distillation loss"``.
        group: entry-point group of plugins, e.g. ``"autodistill.losses"``.
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self._entries: dict[str, T] = {}
        _registries[group] = self

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files its function (or value) under ``name``.

        Raises:
            UsageError: the name is taken.
        """

        def decorate(entry: T) -> T:
            if name in self._entries:
                raise UsageError(f"{self.kind} {name!r} is registered already; choose another name.")
            self._entries[name] = entry
            if module := _registrar():
                _foreign[Foreign(module, self.group, name)] = None
            return entry

        return decorate

    def get(self, name: str) -> T:
        """The entry called ``name``.

        Raises:
            UnknownNameError: nobody registered it; the message lists the nearest names.
        """
        if name in self._entries:
            return self._entries[name]
        for point in self._plugins():
            if point.name == name:
                entry: T = point.load()
                return self._entries.setdefault(name, entry)
        raise UnknownNameError(self.kind, name, self.names())

    def names(self) -> tuple[str, ...]:
        """All names, sorted, plugins included."""
        return tuple(sorted({*self._entries, *(point.name for point in self._plugins())}))

    def _plugins(self) -> tuple[EntryPoint, ...]:
        return tuple(entry_points(group=self.group))

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self.names()  # asking for plugins costs 10 ms

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())
