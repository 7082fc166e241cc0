"""Text and keys of the source code that builds a network.

A change of the code may change the network although no name, setting or weight changes. This module loads neither torch
nor timm, so that remembered costs of built-in families can be found without them.
"""

from __future__ import annotations

import functools
import inspect
import secrets
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from autodistill.core.records import stable_key
from autodistill.training.runtime.source_values import values_of

GROUP = "autodistill.families"
_INSTALLED = ("site-packages", "dist-packages")


def code_of(function: Callable[..., Any]) -> str:
    """Return the text of the function's module, followed by that of the neighbour modules it imports.

    Neighbours are the modules of the same package, and modules in the same folder or below that are not installed
    packages; imports are followed transitively. The result is empty if the module has no file (notebook, prompt).
    """
    module = _module_of(function)
    text = "" if module is None else _text(module)
    if module is None or not text:
        return ""
    others = sorted(_reached(module), key=lambda one: one.__name__)
    return "\n".join([text, *map(_text, others)])


def code_key(function: Callable[..., Any]) -> str:
    """Return a key that is equal for equal code; without source text, it is equal within this process only."""
    return stable_key(code_of(function) or _this_process())


def builder_values(build: Callable[..., Any]) -> list[str]:
    """Return the values that a builder and the code it calls read, as text; see ``source_values``."""
    module = _module_of(build)
    own = set() if module is None else {one.__name__ for one in (module, *_reached(module))}
    return values_of(build, own.__contains__)


def _module_of(function: Callable[..., Any]) -> ModuleType | None:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.getmodule(function)


def _reached(start: ModuleType) -> list[ModuleType]:
    """Return the neighbour modules that a module imports, directly or indirectly."""
    found = {start.__name__: start}
    waiting = [start]
    while waiting:
        for other in _imported(waiting.pop()):
            if other.__name__ not in found and _are_neighbours(start, other):
                found[other.__name__] = other
                waiting.append(other)
    del found[start.__name__]
    return list(found.values())


def _imported(module: ModuleType) -> Iterator[ModuleType]:
    """Yield the modules that a module refers to, directly or through a function, class or instance of them."""
    for value in list(vars(module).values()):
        name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        other = sys.modules.get(name) if isinstance(name, str) else None
        if other is not None:
            yield other


def _are_neighbours(one: ModuleType, other: ModuleType) -> bool:
    """Return whether ``other`` belongs to the package of ``one``, or lies in its folder without being installed."""
    root, others_root = (module.__name__.partition(".")[0] for module in (one, other))
    if others_root == root or others_root == "autodistill":
        return others_root == root
    here, there = (getattr(module, "__file__", None) for module in (one, other))
    if not here or not there or there.startswith(sysconfig.get_path("stdlib")):
        return False
    folder, file = Path(here).absolute().parent, Path(there).absolute()
    return file.is_relative_to(folder) and not set(_INSTALLED) & {folder.name, *file.relative_to(folder).parts}


def _text(module: ModuleType) -> str:
    try:
        return inspect.getsource(module)
    except (OSError, TypeError):  # there is no source file
        return ""


@functools.cache
def _this_process() -> str:
    return secrets.token_hex(8)
