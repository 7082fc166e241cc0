"""One class for everything that has a name in YAML: losses, families, objectives, data sources, engines.

A name is one decorated function. Third parties register through entry points of the group
``autodistill.<kind>`` (e.g. ``autodistill.losses``); a broken plugin is reported when its name is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from autodistill.errors import UnknownNameError, UsageError

T = TypeVar("T")


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

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files its function (or value) under ``name``.

        Raises:
            UsageError: the name is taken.
        """

        def decorate(entry: T) -> T:
            if name in self._entries:
                raise UsageError(f"{self.kind} {name!r} is registered already; choose another name.")
            self._entries[name] = entry
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
