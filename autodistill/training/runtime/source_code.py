"""The code that makes a network, as text: what it builds may change without a name, a setting or a weight changing.

Loads neither torch nor timm: what is remembered of built-in families is found without them.
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
    """The text of the module that ``function`` stands in, then of its neighbours that it imports, directly or not.

    Neighbours are the modules of its own package, and those in its folder or below that nobody installed. Empty where
    there is no file: in a notebook, or at the prompt.
    """
    module = _module_of(function)
    text = "" if module is None else _text(module)
    if module is None or not text:
        return ""
    others = sorted(_reached(module), key=lambda one: one.__name__)
    return "\n".join([text, *map(_text, others)])


def code_key(function: Callable[..., Any]) -> str:
    """Equal for equal code; where there is no text to compare, equal within this process only."""
    return stable_key(code_of(function) or _this_process())


def builder_values(build: Callable[..., Any]) -> list[str]:
    """The values that a builder and the code it reaches read, in words; see ``source_values``."""
    module = _module_of(build)
    own = set() if module is None else {one.__name__ for one in (module, *_reached(module))}
    return values_of(build, own.__contains__)


def _module_of(function: Callable[..., Any]) -> ModuleType | None:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.getmodule(function)


def _reached(start: ModuleType) -> list[ModuleType]:
    """The neighbours of a module that it imports, and those that they import."""
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
    """The modules that a module names, or of which it names a function, a class or an instance."""
    for value in list(vars(module).values()):
        name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        other = sys.modules.get(name) if isinstance(name, str) else None
        if other is not None:
            yield other


def _are_neighbours(one: ModuleType, other: ModuleType) -> bool:
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
    except (OSError, TypeError):  # built without a source file
        return ""


@functools.cache
def _this_process() -> str:
    return secrets.token_hex(8)
