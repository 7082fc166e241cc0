"""Registry of names that can be used in YAML: losses, families, objectives, data sources, engines.

A name is registered by decorating a function. Plugins register through entry points of the group ``autodistill.<kind>``
(e.g. ``autodistill.losses``); a broken plugin is reported when its name is used.
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
    """A name registered by code outside this package.

    Attributes:
        module: Module that registered it.
        group: Entry-point group of its registry.
        name: The name.
    """

    module: str
    group: str
    name: str


_registries: dict[str, Registry[Any]] = {}
_foreign: dict[Foreign, None] = {}


def foreign() -> tuple[Foreign, ...]:
    """Return all names that code outside this package has registered in this process, in order."""
    return tuple(_foreign)


def register_again(names: Sequence[Foreign]) -> str:
    """Import the modules that registered ``names`` in another process.

    Returns:
        What is still missing afterwards, in words; empty if nothing is.
    """
    for one in names:
        if one.module not in sys.modules:
            try:
                importlib.import_module(one.module)
            except Exception as error:  # the user's module may raise anything
                return f"{one.module} cannot be imported: {type(error).__name__}: {error}"
    missing = [one for one in names if one.group not in _registries or one.name not in _registries[one.group]]
    return "".join(f"{one.name!r} is not registered by importing {one.module}" for one in missing[:1])


def _registrar() -> str:
    """Return the module outside this package that is registering a name now; empty if it is one of this package."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        root = module.partition(".")[0]
        if root != _PACKAGE:
            return "" if root == "importlib" else module  # importlib: a module of this package is being imported
        frame = frame.f_back
    return ""


class Registry(Generic[T]):
    """Names of one kind, each with its function or value.

    Args:
        kind: Singular noun used in messages, e.g. ``"distillation loss"``.
        group: Entry-point group of plugins, e.g. ``"autodistill.losses"``.
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self._entries: dict[str, T] = {}
        _registries[group] = self

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers its function (or value) under ``name``.

        Raises:
            UsageError: The name is already registered.
        """

        def decorate(entry: T) -> T:
            if name in self._entries:
                raise UsageError(f"{self.kind} {name!r} is already registered; choose another name.")
            self._entries[name] = entry
            if module := _registrar():
                _foreign[Foreign(module, self.group, name)] = None
            return entry

        return decorate

    def get(self, name: str) -> T:
        """Return the entry registered under ``name``.

        Raises:
            UnknownNameError: The name is not registered; the message lists the nearest names.
        """
        if name in self._entries:
            return self._entries[name]
        for point in self._plugins():
            if point.name == name:
                entry: T = point.load()
                return self._entries.setdefault(name, entry)
        raise UnknownNameError(self.kind, name, self.names())

    def names(self) -> tuple[str, ...]:
        """Return all names, sorted, plugins included."""
        return tuple(sorted({*self._entries, *(point.name for point in self._plugins())}))

    def _plugins(self) -> tuple[EntryPoint, ...]:
        return tuple(entry_points(group=self.group))

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self.names()  # own entries first: listing plugins takes 10 ms

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())
